//! Every error a client can see, with its gRPC code and its exact text: clients compare both.
//!
//! Three kinds stand in the table. Most are etcd's own, beginning with `etcdserver: `. Two of those
//! (`TooManyRequests`, `MemberNotEnoughStarted`) go out as Unknown, as they do from Go, although the client
//! libraries declare other codes for them. The rest are texts of Go's inner packages that reach clients as they are.

use std::borrow::Cow;
use std::fmt;

macro_rules! codes {
    ($($name:ident = $number:literal, $http:literal;)*) => {
        /// The status codes of gRPC.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Code {
            $(#[doc = concat!("Number ", stringify!($number), "; the JSON gateway answers HTTP ", stringify!($http), ".")]
            $name = $number,)*
        }

        impl Code {
            /// All codes in the order of their numbers.
            pub const ALL: &[Code] = &[$(Code::$name,)*];

            /// The name as Go prints it (`rpc error: code = NAME desc = ...`).
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Code::$name => stringify!($name),)* }
            }

            /// The HTTP status with which the JSON gateway carries this code.
            #[must_use]
            pub const fn http_status(self) -> u16 {
                match self { $(Code::$name => $http,)* }
            }

            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> i32 {
                self as i32
            }

            /// The code of a number on the wire; numbers nobody defined count as Unknown, as gRPC asks.
            #[must_use]
            pub fn of(number: i32) -> Code {
                usize::try_from(number).ok().and_then(|n| Self::ALL.get(n)).copied().unwrap_or(Code::Unknown)
            }
        }
    };
}

codes! {
    Ok = 0, 200;
    Canceled = 1, 499;
    Unknown = 2, 500;
    InvalidArgument = 3, 400;
    DeadlineExceeded = 4, 504;
    NotFound = 5, 404;
    AlreadyExists = 6, 409;
    PermissionDenied = 7, 403;
    ResourceExhausted = 8, 429;
    FailedPrecondition = 9, 400;
    Aborted = 10, 409;
    OutOfRange = 11, 400;
    Unimplemented = 12, 501;
    Internal = 13, 500;
    Unavailable = 14, 503;
    DataLoss = 15, 500;
    Unauthenticated = 16, 401;
}

macro_rules! errors {
    ($($name:ident = $code:ident, $message:literal;)*) => {
        /// An error with a fixed text.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCode {
            $(#[doc = concat!(stringify!($code), ": `", $message, "`")] $name,)*
        }

        impl ErrorCode {
            /// All errors, in the order of the table.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$name,)*];

            /// The gRPC code on the wire.
            #[must_use]
            pub const fn grpc(self) -> Code {
                match self { $(ErrorCode::$name => Code::$code,)* }
            }

            /// The text on the wire.
            #[must_use]
            pub const fn message(self) -> &'static str {
                match self { $(ErrorCode::$name => $message,)* }
            }
        }
    };
}

errors! {
    EmptyKey = InvalidArgument, "etcdserver: key is not provided";
    KeyNotFound = InvalidArgument, "etcdserver: key not found";
    ValueProvided = InvalidArgument, "etcdserver: value is provided";
    LeaseProvided = InvalidArgument, "etcdserver: lease is provided";
    TooManyOps = InvalidArgument, "etcdserver: too many operations in txn request";
    DuplicateKey = InvalidArgument, "etcdserver: duplicate key given in txn request";
    InvalidClientApiVersion = InvalidArgument, "etcdserver: invalid client api version";
    InvalidSortOption = InvalidArgument, "etcdserver: invalid sort option";
    Compacted = OutOfRange, "etcdserver: mvcc: required revision has been compacted";
    FutureRev = OutOfRange, "etcdserver: mvcc: required revision is a future revision";
    NoSpace = ResourceExhausted, "etcdserver: mvcc: database space exceeded";
    LeaseNotFound = NotFound, "etcdserver: requested lease not found";
    LeaseExist = FailedPrecondition, "etcdserver: lease already exists";
    LeaseTtlTooLarge = OutOfRange, "etcdserver: too large lease TTL";
    WatchCanceled = Canceled, "etcdserver: watch canceled";
    MemberExist = FailedPrecondition, "etcdserver: member ID already exist";
    PeerUrlExist = FailedPrecondition, "etcdserver: Peer URLs already exists";
    MemberNotEnoughStarted = Unknown, "etcdserver: re-configuration failed due to not enough started members";
    MemberBadUrls = InvalidArgument, "etcdserver: given member URLs are invalid";
    MemberNotFound = NotFound, "etcdserver: member not found";
    MemberNotLearner = FailedPrecondition, "etcdserver: can only promote a learner member";
    LearnerNotReady = FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader";
    TooManyLearners = FailedPrecondition, "etcdserver: too many learner members in cluster";
    ClusterIdMismatch = FailedPrecondition, "etcdserver: cluster ID mismatch";
    RequestTooLarge = InvalidArgument, "etcdserver: request is too large";
    TooManyRequests = Unknown, "etcdserver: too many requests";
    RootUserNotExist = FailedPrecondition, "etcdserver: root user does not exist";
    RootRoleNotExist = FailedPrecondition, "etcdserver: root user does not have root role";
    UserAlreadyExist = FailedPrecondition, "etcdserver: user name already exists";
    UserEmpty = InvalidArgument, "etcdserver: user name is empty";
    UserNotFound = FailedPrecondition, "etcdserver: user name not found";
    RoleAlreadyExist = FailedPrecondition, "etcdserver: role name already exists";
    RoleNotFound = FailedPrecondition, "etcdserver: role name not found";
    RoleEmpty = InvalidArgument, "etcdserver: role name is empty";
    AuthFailed = InvalidArgument, "etcdserver: authentication failed, invalid user ID or password";
    PermissionNotGiven = InvalidArgument, "etcdserver: permission not given";
    PermissionDenied = PermissionDenied, "etcdserver: permission denied";
    RoleNotGranted = FailedPrecondition, "etcdserver: role is not granted to the user";
    PermissionNotGranted = FailedPrecondition, "etcdserver: permission is not granted to the role";
    AuthNotEnabled = FailedPrecondition, "etcdserver: authentication is not enabled";
    InvalidAuthToken = Unauthenticated, "etcdserver: invalid auth token";
    InvalidAuthMgmt = InvalidArgument, "etcdserver: invalid auth management";
    AuthOldRevision = InvalidArgument, "etcdserver: revision of auth store is old";
    NoLeader = Unavailable, "etcdserver: no leader";
    NotLeader = FailedPrecondition, "etcdserver: not leader";
    LeaderChanged = Unavailable, "etcdserver: leader changed";
    NotCapable = FailedPrecondition, "etcdserver: not capable";
    Stopped = Unavailable, "etcdserver: server stopped";
    Timeout = Unavailable, "etcdserver: request timed out";
    TimeoutDueToLeaderFail = Unavailable, "etcdserver: request timed out, possibly due to previous leader failure";
    TimeoutDueToConnectionLost = Unavailable, "etcdserver: request timed out, possibly due to connection lost";
    TimeoutWaitAppliedIndex = Unavailable, "etcdserver: request timed out, waiting for the applied index took too long";
    Unhealthy = Unavailable, "etcdserver: unhealthy cluster";
    Corrupt = DataLoss, "etcdserver: corrupt cluster";
    NotSupportedForLearner = FailedPrecondition, "etcdserver: rpc not supported for learner";
    BadLeaderTransferee = FailedPrecondition, "etcdserver: bad leader transferee";
    WrongDowngradeVersionFormat = InvalidArgument, "etcdserver: wrong downgrade target version format";
    InvalidDowngradeTargetVersion = InvalidArgument, "etcdserver: invalid downgrade target version";
    ClusterVersionUnavailable = FailedPrecondition, "etcdserver: cluster version not found during downgrade";
    DowngradeInProcess = FailedPrecondition, "etcdserver: cluster has a downgrade job in progress";
    NoInflightDowngrade = FailedPrecondition, "etcdserver: no inflight downgrade job";
    Canceled = Canceled, "etcdserver: request canceled";
    DeadlineExceeded = DeadlineExceeded, "etcdserver: context deadline exceeded";
    TimeoutLeaderTransfer = Unknown, "etcdserver: request timed out, leader transfer took too long";
    UnknownMethod = Unknown, "etcdserver: unknown method";
    NotPrimary = Unknown, "not a primary lessor";
    LeaseHttpTimeout = Unknown, "waiting for node to catch up its applied index has timed out";
    NoPasswordUser = Unknown, "auth: authentication failed, password was given for no password user";
    VerifyOnly = Unknown, "auth: token signing attempted with verify-only key";
    PasswordTooLong = Unknown, "bcrypt: password length exceeds 72 bytes";
    MissingLeaderKey = Unknown, "\"leader\" field must be provided";
    ElectionNoLeader = Unknown, "election: no leader";
    ElectionNotLeader = Unknown, "election: not leader";
    SessionExpired = Unknown, "mutex: session is expired";
    RangeStreamSorted = Unimplemented, "RangeStream does not support custom sort orders";
    RangeStreamFiltered = Unimplemented, "RangeStream does not support revision filters";
    ContextDeadlineExceeded = DeadlineExceeded, "context deadline exceeded";
    ContextCanceled = Canceled, "context canceled";
    UnknownHealthService = NotFound, "unknown service";
    GatewayMethodNotAllowed = Unimplemented, "Method Not Allowed";
    GatewayNotFound = NotFound, "Not Found";
}

impl ErrorCode {
    /// The number of the gRPC code on the wire.
    #[must_use]
    pub const fn code(self) -> i32 {
        self.grpc().number()
    }

    /// The error with this text, for a client that has only the text: codes differ between releases, texts do not.
    #[must_use]
    pub fn of_message(message: &str) -> Option<ErrorCode> {
        Self::ALL.iter().copied().find(|e| e.message() == message)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for ErrorCode {}

/// How a call ended badly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Number of the gRPC code.
    pub code: i32,
    /// The text.
    pub message: Cow<'static, str>,
}

impl Status {
    /// A status with a text made at run time.
    #[must_use]
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Status {
        Status { code: code.number(), message: message.into() }
    }

    /// An inner failure that has no row in the table goes out as Unknown with its own text.
    #[must_use]
    pub fn unknown(message: impl Into<Cow<'static, str>>) -> Status {
        Status::new(Code::Unknown, message)
    }

    /// A message longer than the receive limit.
    #[must_use]
    pub fn message_too_large(size: usize, limit: usize) -> Status {
        Status::new(
            Code::ResourceExhausted,
            format!("grpc: received message larger than max ({size} vs. {limit})"),
        )
    }

    /// A path whose service nobody serves.
    #[must_use]
    pub fn unknown_service(service: &str) -> Status {
        Status::new(Code::Unimplemented, format!("unknown service {service}"))
    }

    /// A path whose service has no such method.
    #[must_use]
    pub fn unknown_method(method: &str, service: &str) -> Status {
        Status::new(Code::Unimplemented, format!("unknown method {method} for service {service}"))
    }
}

impl From<ErrorCode> for Status {
    fn from(error: ErrorCode) -> Status {
        Status { code: error.code(), message: Cow::Borrowed(error.message()) }
    }
}

/// As Go prints a status. This form is also what the cancel reason of a watch holds when a permission is missing.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rpc error: code = {} desc = {}", Code::of(self.code).name(), self.message)
    }
}

impl std::error::Error for Status {}

/// Cancel reasons of a watch that are not the text of an [`ErrorCode`].
pub mod cancel_reason {
    /// The end of the range does not lie behind its key.
    pub const EMPTY_RANGE: &str = "mvcc: watcher range is empty";
    /// The id is taken on this stream.
    pub const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";
}
