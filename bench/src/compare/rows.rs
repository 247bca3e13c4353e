//! The workloads of the comparison.

/// One workload.
pub(super) struct Row {
    /// For `--only`.
    pub(super) name: &'static str,
    /// For the table.
    pub(super) title: &'static str,
    /// Arguments of the load generator.
    pub(super) load: &'static str,
    /// Go's CPU per operation over ours that has to be shown.
    pub(super) target: Option<f64>,
}

const fn row(name: &'static str, title: &'static str, target: Option<f64>, load: &'static str) -> Row {
    Row { name, title, load, target }
}

pub(super) static ROWS: &[Row] = &[
    row("put-1", "put 256 B, 1 client", Some(2.0), "put --clients 1 --conns 1 --prefix /kv/"),
    row("put-64", "put, 64 clients", Some(4.0), "put --clients 64 --conns 8 --prefix /kv/"),
    row("put-256", "put, 256", Some(5.0), "put --clients 256 --conns 16 --prefix /kv/"),
    row("put-1000", "put, 1000", Some(5.0), "put --clients 1000 --conns 50 --prefix /kv/"),
    row(
        "get-serializable",
        "get, serializable, 64",
        Some(6.0),
        "range --consistency serializable --clients 64 --conns 8 --prefix /kv/",
    ),
    row(
        "get-linearizable",
        "get, linearizable, 64",
        Some(7.0),
        "range --consistency linearizable --clients 64 --conns 8 --prefix /kv/",
    ),
    row(
        "list",
        "list 10,000 x 1 KiB",
        Some(3.0),
        "list --clients 1 --conns 1 --prefix /list/ --key-space-size 10000 --val-size 1024",
    ),
    row(
        "pages",
        "the same in pages of 500, 8 clients",
        Some(5.0),
        "list --clients 8 --conns 4 --limit 500 --prefix /list/ --key-space-size 10000 --val-size 1024",
    ),
    row("txn-64", "guarded update transaction, 64", Some(4.0), "txn --clients 64 --conns 8 --prefix /txn/"),
    row("mixed", "mixed Kubernetes load, 64", Some(3.0), "mixed-k8s --clients 64 --conns 8"),
    row(
        "watch-10",
        "watch event, 1000 watchers on 10 streams",
        Some(6.0),
        "watch-fanout --watchers 1000 --streams 10 --rate 100 --conns 8 --prefix /w2/",
    ),
    row(
        "watch-1000",
        "watch event, 1000 streams",
        Some(10.0),
        "watch-fanout --watchers 1000 --streams 1000 --rate 100 --conns 8 --prefix /w3/",
    ),
    row(
        "keepalive",
        "lease keepalive, 1000",
        Some(3.0),
        "lease-keepalive --leases 1000 --clients 100 --conns 8",
    ),
    row("open-500", "put, open loop, 500/s", None, "put --clients 64 --conns 8 --rate 500 --prefix /kv/"),
    row("open-5000", "put, open loop, 5,000/s", None, "put --clients 64 --conns 8 --rate 5000 --prefix /kv/"),
    row(
        "open-15000",
        "put, open loop, 15,000/s",
        None,
        "put --clients 256 --conns 16 --rate 15000 --prefix /kv/",
    ),
];

/// On three members, clients spread over all of them.
pub(super) static CLUSTER_ROWS: &[Row] = &[
    row("cluster-put-1", "put, 1 client", None, "put --clients 1 --conns 1 --prefix /kv/"),
    row("cluster-put-64", "put, 64 clients", Some(3.0), "put --clients 64 --conns 9 --prefix /kv/"),
    row("cluster-put-1000", "put, 1000", Some(3.0), "put --clients 1000 --conns 51 --prefix /kv/"),
    row(
        "cluster-get",
        "get, linearizable, 64",
        None,
        "range --consistency linearizable --clients 64 --conns 9 --prefix /kv/",
    ),
];
