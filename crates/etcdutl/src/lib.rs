//! etcdutl
