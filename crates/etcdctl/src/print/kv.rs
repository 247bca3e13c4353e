//! Answers about keys.

use std::fmt::Write;

use api::etcdserverpb::response_op::Response;
use api::etcdserverpb::{DeleteRangeResponse, PutResponse, RangeResponse, ResponseOp, TxnResponse};
use etcdutl::cli::Outcome;
use etcdutl::json::Writer;
use prost::Message;

use super::{Printer, kv_json, with_header};

impl Printer {
    pub(crate) fn put(&self, answer: &PutResponse) -> Outcome {
        self.show(
            || Some(self.put_simple(answer)),
            || Some(put_json(answer)),
            || Some(self.put_fields(answer)),
            || Some(answer.encode_to_vec()),
        )
    }

    fn put_simple(&self, answer: &PutResponse) -> Vec<u8> {
        let mut text = b"OK\n".to_vec();
        if let Some(kv) = &answer.prev_kv {
            self.kv_simple(&mut text, self.value_only, kv);
        }
        text
    }

    fn put_fields(&self, answer: &PutResponse) -> String {
        let mut text = self.header_fields(answer.header.as_ref());
        if let Some(kv) = &answer.prev_kv {
            self.kv_fields(&mut text, "Prev", kv);
        }
        text
    }

    pub(crate) fn get(&self, answer: &RangeResponse) -> Outcome {
        self.show(
            || Some(self.get_simple(answer)),
            || Some(get_json(answer)),
            || Some(self.get_fields(answer)),
            || Some(answer.encode_to_vec()),
        )
    }

    fn get_simple(&self, answer: &RangeResponse) -> Vec<u8> {
        let mut text = Vec::new();
        for kv in &answer.kvs {
            self.kv_simple(&mut text, self.value_only, kv);
        }
        text
    }

    fn get_fields(&self, answer: &RangeResponse) -> String {
        let mut text = self.header_fields(answer.header.as_ref());
        for kv in &answer.kvs {
            self.kv_fields(&mut text, "", kv);
        }
        let _ = writeln!(text, "\"More\" : {}", answer.more);
        let _ = writeln!(text, "\"Count\" : {}", answer.count);
        text
    }

    pub(crate) fn del(&self, answer: &DeleteRangeResponse) -> Outcome {
        self.show(
            || Some(self.del_simple(answer)),
            || Some(del_json(answer)),
            || Some(self.del_fields(answer)),
            || Some(answer.encode_to_vec()),
        )
    }

    fn del_simple(&self, answer: &DeleteRangeResponse) -> Vec<u8> {
        let mut text = format!("{}\n", answer.deleted).into_bytes();
        for kv in &answer.prev_kvs {
            self.kv_simple(&mut text, self.value_only, kv);
        }
        text
    }

    fn del_fields(&self, answer: &DeleteRangeResponse) -> String {
        let mut text = self.header_fields(answer.header.as_ref());
        let _ = writeln!(text, "\"Deleted\" : {}", answer.deleted);
        for kv in &answer.prev_kvs {
            self.kv_fields(&mut text, "Prev", kv);
        }
        text
    }

    pub(crate) fn txn(&self, answer: &TxnResponse) -> Outcome {
        self.show(
            || Some(self.txn_simple(answer)),
            || Some(txn_json(answer)),
            || Some(self.txn_fields(answer)),
            || Some(answer.encode_to_vec()),
        )
    }

    fn txn_simple(&self, answer: &TxnResponse) -> Vec<u8> {
        let mut text = if answer.succeeded { b"SUCCESS\n".to_vec() } else { b"FAILURE\n".to_vec() };
        for op in &answer.responses {
            text.push(b'\n');
            text.extend(match &op.response {
                Some(Response::ResponsePut(put)) => self.put_simple(put),
                Some(Response::ResponseRange(range)) => self.get_simple(range),
                Some(Response::ResponseDeleteRange(deleted)) => self.del_simple(deleted),
                Some(Response::ResponseTxn(inner)) => self.txn_simple(inner),
                None => Vec::new(),
            });
        }
        text
    }

    fn txn_fields(&self, answer: &TxnResponse) -> String {
        let mut text = self.header_fields(answer.header.as_ref());
        let _ = writeln!(text, "\"Succeeded\" : {}", answer.succeeded);
        for op in &answer.responses {
            text.push_str(&match &op.response {
                Some(Response::ResponsePut(put)) => self.put_fields(put),
                Some(Response::ResponseRange(range)) => self.get_fields(range),
                Some(Response::ResponseDeleteRange(deleted)) => self.del_fields(deleted),
                Some(Response::ResponseTxn(inner)) => self.txn_fields(inner),
                None => String::new(),
            });
        }
        text
    }
}

fn put_json(answer: &PutResponse) -> String {
    let mut object = with_header(answer.header.as_ref());
    if let Some(kv) = &answer.prev_kv {
        object.field("prev_kv", kv_json(kv));
    }
    object.end()
}

fn get_json(answer: &RangeResponse) -> String {
    let mut object = with_header(answer.header.as_ref());
    object.items("kvs", answer.kvs.iter().map(kv_json));
    object.switch("more", answer.more).number("count", answer.count);
    object.end()
}

fn del_json(answer: &DeleteRangeResponse) -> String {
    let mut object = with_header(answer.header.as_ref());
    object.number("deleted", answer.deleted).items("prev_kvs", answer.prev_kvs.iter().map(kv_json));
    object.end()
}

fn txn_json(answer: &TxnResponse) -> String {
    let mut object = with_header(answer.header.as_ref());
    object.switch("succeeded", answer.succeeded);
    object.items("responses", answer.responses.iter().map(response_json));
    object.end()
}

fn response_json(op: &ResponseOp) -> String {
    let (name, value) = match &op.response {
        Some(Response::ResponsePut(put)) => ("response_put", put_json(put)),
        Some(Response::ResponseRange(range)) => ("response_range", get_json(range)),
        Some(Response::ResponseDeleteRange(deleted)) => ("response_delete_range", del_json(deleted)),
        Some(Response::ResponseTxn(inner)) => ("response_txn", txn_json(inner)),
        None => return Writer::object().field("Response", "null").end(),
    };
    let inner = Writer::object().field(name, value).end();
    Writer::object().field("Response", inner).end()
}
