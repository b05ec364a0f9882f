mod contract;
#[path = "../../tests/hypha/etcd.rs"]
pub(crate) mod etcd;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use proptest::prelude::*;
use tokio::sync::watch;

use self::contract::keeps_the_contract;
use self::etcd::Server;
use super::etcd::{Etcd, Leader, Leadership, Secret, StoreArgs};
use super::{Store, StoreError};

fn scratch() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("state.db")).unwrap();
    (dir, store)
}

async fn all(store: &Store, prefix: &str) -> Vec<(String, u32)> {
    store.list::<u32>(prefix).await.unwrap().into_iter().map(|(key, entry)| (key, entry.value)).collect()
}

#[tokio::test]
async fn a_file_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let number = Cell::new(0);
    keeps_the_contract(async || {
        number.set(number.get() + 1);
        Store::open(&dir.path().join(format!("{}.db", number.get()))).unwrap()
    })
    .await;
}

#[tokio::test]
async fn etcd_keeps_the_contract() {
    let server = Server::start(&["--max-txn-ops=2048"]);
    let leaderships = Cell::new(Vec::new());
    keeps_the_contract(async || {
        let mut all = leaderships.take();
        let etcd = Etcd::open(&server.location(&format!("contract/{}", all.len())).parse().unwrap(), "no")
            .await
            .unwrap();
        let (store, leadership) = lead(&etcd, "the test").await.unwrap();
        all.push(leadership);
        leaderships.set(all);
        store
    })
    .await;
}

async fn lead(etcd: &Etcd, name: &str) -> Result<(Store, Leadership), StoreError> {
    let own = Leader { name: name.to_owned(), at: Vec::new(), secret: Secret::random() };
    etcd.lead(&own, &watch::Sender::new(None)).await
}

#[tokio::test]
async fn who_leads_no_more_writes_nothing() {
    let server = Server::start(&["--max-txn-ops=2048"]);
    let etcd = Etcd::open(&server.location("lead").parse().unwrap(), "no").await.unwrap();
    let (first, leadership) = lead(&etcd, "first").await.unwrap();
    first.put("a", &1_u32).await.unwrap();
    let other = etcd.clone();
    let waiting = tokio::spawn(async move { lead(&other, "second").await });
    assert!(!waiting.is_finished());
    leadership.give_up().await;
    let (second, leadership) = waiting.await.unwrap().unwrap();
    assert_eq!(second.get::<u32>("a").await.unwrap().unwrap().value, 1);
    second.put("a", &2_u32).await.unwrap();
    assert!(matches!(first.put("a", &3_u32).await, Err(StoreError::Deposed)));
    assert_eq!(all(&second, "a").await, [("a".to_owned(), 2)]);
    // Without etcd it is known after a while that somebody else may lead.
    server.signal(Signal::SIGSTOP);
    leadership.lost().await;
}

#[tokio::test]
async fn an_etcd_with_a_certificate_is_believed_only_if_it_is_the_right_one() {
    let folder = tempfile::tempdir().unwrap();
    let [certificate, key, wrong] = ["cert.pem", "key.pem", "wrong.pem"].map(|name| folder.path().join(name));
    let make = || rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (made, other) = (make(), make());
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    std::fs::write(&wrong, other.cert.pem()).unwrap();
    let [certificate, key] = [&certificate, &key].map(|path| path.to_str().unwrap());
    let server = Server::start(&["--max-txn-ops=2048", "--cert-file", certificate, "--key-file", key]);
    let location = server.location("tls").replace("etcd://", "etcds://");
    let open = async |ca: Option<PathBuf>| {
        let args = StoreArgs { store: Some(location.parse().unwrap()), store_ca: ca, ..StoreArgs::default() };
        Etcd::open(&args.location().unwrap().unwrap(), "no").await
    };
    let etcd = open(Some(certificate.into())).await.unwrap();
    let (store, leadership) = lead(&etcd, "the test").await.unwrap();
    store.put("a", &1_u32).await.unwrap();
    assert_eq!(all(&store, "").await, [("a".to_owned(), 1)]);
    leadership.give_up().await;
    assert!(matches!(open(Some(wrong)).await, Err(StoreError::Etcd { .. })));
    assert!(matches!(open(None).await, Err(StoreError::Etcd { .. })), "this system does not know it");
    assert!(matches!(open(Some("/nowhere.pem".into())).await, Err(StoreError::Pem { .. })));
}

#[tokio::test]
async fn an_etcd_that_takes_few_operations_is_refused_with_the_remedy() {
    let server = Server::start(&[]);
    let error = Etcd::open(&server.location("few").parse().unwrap(), "no").await.unwrap_err();
    assert!(error.to_string().contains("start it with --max-txn-ops=1024"), "{error}");
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let store = Store::open(&path).unwrap();
    store.put("service/1", &1_u32).await.unwrap();
    store.put("service/2", &2_u32).await.unwrap();
    store.delete("service/1").await.unwrap();
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!(all(&store, "service/").await, [("service/2".to_owned(), 2)]);
}

#[test]
fn a_file_that_is_no_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    std::fs::write(&path, "this is not a database, and long enough to be told so").unwrap();
    assert!(matches!(Store::open(&path), Err(StoreError::Damaged { .. })));
}

#[tokio::test]
async fn a_damaged_file_is_refused_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let store = Store::open(&path).unwrap();
    for number in 0..500 {
        store.put(&format!("key/{number}"), &"x".repeat(200)).await.unwrap();
    }
    drop(store);
    // The log is in the file once the last of its users has closed it.
    while dir.path().join("state.db-wal").exists() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8192].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    let error = Store::open(&path).unwrap_err();
    assert!(error.to_string().contains("`orchestrator restore` puts a backup in its place"), "{error}");
}

#[tokio::test]
async fn a_file_becomes_small_again_when_what_was_in_it_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let store = Store::open(&path).unwrap();
    let number_of_bytes = || {
        let size = |name: &str| std::fs::metadata(dir.path().join(name)).map_or(0, |file| file.len());
        size("state.db") + size("state.db-wal")
    };
    let large = "x".repeat(100_000);
    for number in 0..200 {
        store.put(&format!("key/{number}"), &large).await.unwrap();
    }
    assert!(number_of_bytes() > 20_000_000);
    for number in 0..200 {
        store.delete(&format!("key/{number}")).await.unwrap();
    }
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while number_of_bytes() > 6_000_000 {
        assert!(std::time::Instant::now() < deadline, "{} bytes are left", number_of_bytes());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_file_of_a_version_that_did_not_give_back_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let old = rusqlite::Connection::open(&path).unwrap();
    old.execute_batch(
        "PRAGMA journal_mode = WAL;
         CREATE TABLE entry (key TEXT PRIMARY KEY, value TEXT NOT NULL, revision INTEGER NOT NULL) WITHOUT ROWID;
         INSERT INTO entry VALUES ('a', '1', 7); PRAGMA user_version = 1;",
    )
    .unwrap();
    drop(old);
    let store = Store::open(&path).unwrap();
    assert_eq!(all(&store, "").await, [("a".to_owned(), 1)]);
    let mode: i64 = rusqlite::Connection::open(&path)
        .unwrap()
        .pragma_query_value(None, "auto_vacuum", |row| row.get(0))
        .unwrap();
    assert_eq!(mode, 2, "nothing is given back");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_ends_as_a_map_would(history in prop::collection::vec(("[a-c]{1,2}", any::<Option<u32>>()), 0..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (_dir, store) = scratch();
            let mut model = BTreeMap::new();
            for (key, value) in history {
                if let Some(value) = value {
                    store.put(&key, &value).await.unwrap();
                    model.insert(key, value);
                } else {
                    store.delete(&key).await.unwrap();
                    model.remove(&key);
                }
            }
            assert_eq!(all(&store, "").await, model.into_iter().collect::<Vec<_>>());
        });
    }
}
