//! etcdserver
