//! Header names the codec acts on, told apart once per table entry instead of once per request.

/// A header name, classified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Name {
    Method,
    Path,
    Scheme,
    Authority,
    /// A pseudo-header that no request may carry.
    BadPseudo,
    ContentType,
    ContentLength,
    Te,
    Host,
    UserAgent,
    GrpcTimeout,
    GrpcEncoding,
    Authorization,
    Token,
    HasLeader,
    ClientApiVersion,
    /// Belongs to HTTP/1.1 connections; forbidden in HTTP/2.
    Connection,
    Other,
    /// Upper case or not a token, or a value with control characters.
    Invalid,
}

impl Name {
    /// Classifies a name as sent on the wire.
    pub(crate) const fn of(name: &[u8]) -> Name {
        match name {
            b":method" => Name::Method,
            b":path" => Name::Path,
            b":scheme" => Name::Scheme,
            b":authority" => Name::Authority,
            b"content-type" => Name::ContentType,
            b"content-length" => Name::ContentLength,
            b"te" => Name::Te,
            b"host" => Name::Host,
            b"user-agent" => Name::UserAgent,
            b"grpc-timeout" => Name::GrpcTimeout,
            b"grpc-encoding" => Name::GrpcEncoding,
            b"authorization" => Name::Authorization,
            b"token" => Name::Token,
            b"hasleader" => Name::HasLeader,
            b"client-api-version" => Name::ClientApiVersion,
            b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" => {
                Name::Connection
            }
            [b':', ..] => Name::BadPseudo,
            _ if valid_name(name) => Name::Other,
            _ => Name::Invalid,
        }
    }

    /// Classifies a whole field: a bad value makes the field invalid whatever its name is.
    pub(crate) fn of_field(name: Name, value: &[u8]) -> Name {
        if valid_value(value) { name } else { Name::Invalid }
    }
}

const fn valid_name(name: &[u8]) -> bool {
    let mut i = 0;
    while i < name.len() {
        let c = name[i];
        let token = c.is_ascii_lowercase()
            || c.is_ascii_digit()
            || matches!(
                c,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        if !token {
            return false;
        }
        i += 1;
    }
    !name.is_empty()
}

fn valid_value(value: &[u8]) -> bool {
    value.iter().all(|&c| (c >= b' ' && c != 0x7f) || c == b'\t')
}
