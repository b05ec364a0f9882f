//! The same store in etcd (3.4 or later): the keys below a prefix, the values as they are, and as a value's revision that of its
//! last change (`mod_revision`).
//!
//! Several daemons may be started with the same prefix. One of them leads, as long as its lease lives ([`Leadership`]), and each
//! of its transactions asks for that: one that was paused and has been replaced meanwhile writes nothing any more. The others are
//! told where it is ([`Leader`]).

mod args;
mod leader;
mod leadership;
mod location;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, Error, GetOptions, Identity, KeyValue, KvClient,
    LeaseClient, TlsOptions, Txn, TxnOp, TxnOpResponse,
};

use super::StoreError;
use super::file::{Raw, Read};
use super::transaction::{Revision, Step};

pub use self::args::StoreArgs;
pub use self::leader::{Leader, Secret};
pub use self::leadership::{Leadership, lost};
pub use self::location::{InvalidLocation, Location, Tls};

/// What etcd is given to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// Values that are read at a time: answers have a largest size.
const PAGE: i64 = 500;
/// What one transaction may need: an application of many services is made in one.
const OPERATIONS: usize = 1024;
/// The first key behind those that begin with a prefix of ASCII is that prefix followed by this, as in the file.
const BEHIND: char = '\u{7f}';

/// A connection to an etcd, and the part of it that is ours.
#[derive(Clone)]
pub struct Etcd {
    kv: KvClient,
    lease: LeaseClient,
    /// Ends with a slash.
    prefix: String,
}

/// The keys of one who leads.
#[derive(Clone)]
pub(super) struct Led {
    etcd: Etcd,
    /// Revision in which the key of the one who leads was made.
    since: i64,
}

impl Etcd {
    /// Connects, and makes sure that it will do. `prefix` is that of the keys if the location has none.
    ///
    /// # Errors
    /// When it is out of reach, refuses the user, or takes too few operations in one transaction.
    pub async fn open(location: &Location, prefix: &str) -> Result<Self, StoreError> {
        let mut options = ConnectOptions::new()
            .with_timeout(ANSWER_WITHIN)
            .with_connect_timeout(CONNECT_WITHIN)
            .with_keep_alive(CONNECT_WITHIN, ANSWER_WITHIN)
            .with_keep_alive_while_idle(true)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some((name, password)) = &location.user {
            options = options.with_user(name, password);
        }
        if location.is_exposed() {
            tracing::warn!(%location, "what is said to etcd can be read on the way, hashes of passwords and the key of logins too; \
                            etcds:// encrypts it");
        }
        if let Some(tls) = &location.tls {
            options = options.with_tls(tls_options(tls).await?);
        }
        let failed =
            |source| StoreError::Etcd { what: format!("reach etcd at {location} (--store)"), source };
        let client = Client::connect(&location.endpoints, Some(options)).await.map_err(failed)?;
        let prefix = location.prefix.as_deref().unwrap_or(prefix);
        let mut etcd =
            Self { kv: client.kv_client(), lease: client.lease_client(), prefix: format!("{prefix}/") };
        let nothing = vec![TxnOp::get(etcd.key("nothing"), None); OPERATIONS];
        match etcd.kv.txn(Txn::new().and_then(nothing)).await {
            Ok(_) => Ok(etcd),
            Err(Error::GRpcStatus(status)) if status.message().contains("too many operations") => {
                Err(StoreError::FewOperations { needed: OPERATIONS })
            }
            Err(source) => Err(failed(source)),
        }
    }

    /// Where it says who leads.
    fn leader(&self) -> String {
        format!("{}leader", self.prefix)
    }

    fn key(&self, key: &str) -> String {
        format!("{}state/{key}", self.prefix)
    }

    async fn get(&self, path: String) -> Result<Option<KeyValue>, Error> {
        Ok(self.kv.clone().get(path, None).await?.take_kvs().pop())
    }
}

async fn tls_options(tls: &Tls) -> Result<TlsOptions, StoreError> {
    let read = async |path: &PathBuf| {
        let read = tokio::fs::read(path).await;
        read.map_err(|source| StoreError::Pem { path: path.clone(), source })
    };
    let mut options = TlsOptions::new();
    options = match &tls.ca {
        Some(ca) => options.ca_certificate(Certificate::from_pem(read(ca).await?)),
        None => options.with_native_roots(),
    };
    if let Some((certificate, key)) = &tls.identity {
        options = options.identity(Identity::from_pem(read(certificate).await?, read(key).await?));
    }
    Ok(options)
}

impl std::fmt::Debug for Etcd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Etcd").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Led {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Led").field("etcd", &self.etcd).field("since", &self.since).finish()
    }
}

impl Led {
    pub(super) async fn read(&self, question: Read) -> Result<Vec<Raw>, StoreError> {
        let failed = |key: &str| {
            let what = format!("read {key} from etcd");
            move |source| StoreError::Etcd { what, source }
        };
        match question {
            Read::Get { key } => {
                let found = self.etcd.get(self.etcd.key(&key)).await.map_err(failed(&key))?;
                Ok(found.into_iter().filter_map(|pair| self.raw(pair)).collect())
            }
            Read::List { prefix } => self.list(&prefix).await.map_err(failed(&prefix)),
            Read::First { prefix, from } => {
                let end = self.etcd.key(&format!("{prefix}{BEHIND}"));
                let options = GetOptions::new().with_range(end).with_limit(1);
                let found = self.etcd.kv.clone().get(self.etcd.key(&from), Some(options)).await;
                let found = found.map_err(failed(&prefix))?.take_kvs();
                Ok(found.into_iter().filter_map(|pair| self.raw(pair)).collect())
            }
        }
    }

    /// All of one moment, a page after the other.
    async fn list(&self, prefix: &str) -> Result<Vec<Raw>, Error> {
        let mut kv = self.etcd.kv.clone();
        let (mut from, end) =
            (self.etcd.key(prefix).into_bytes(), self.etcd.key(&format!("{prefix}{BEHIND}")));
        let (mut moment, mut values) = (0, Vec::new());
        loop {
            let options = GetOptions::new().with_range(end.clone()).with_limit(PAGE).with_revision(moment);
            let mut page = kv.get(from, Some(options)).await?;
            if moment == 0 {
                moment = page.header().map_or(0, |header| header.revision());
            }
            let (more, pairs) = (page.more(), page.take_kvs());
            let last = pairs.last().map(|pair| pair.key().to_vec());
            values.extend(pairs.into_iter().filter_map(|pair| self.raw(pair)));
            match last {
                // The next key that there can be.
                Some(mut last) if more => {
                    last.push(0);
                    from = last;
                }
                _ => return Ok(values),
            }
        }
    }

    /// Nothing for what was put there by somebody else, and is no text.
    fn raw(&self, pair: KeyValue) -> Option<Raw> {
        let revision = Revision(pair.mod_revision());
        let (key, value) = pair.into_key_value();
        let key = String::from_utf8(key).ok()?.strip_prefix(&self.etcd.key(""))?.to_owned();
        Some(Raw { key, value: String::from_utf8(value).ok()?, revision })
    }

    pub(super) async fn commit(&self, steps: Vec<Step>) -> Result<Revision, StoreError> {
        let leads = Compare::create_revision(self.etcd.leader(), CompareOp::Equal, self.since);
        let mut compares = vec![leads];
        let mut expected = Vec::new();
        // etcd takes one operation for each key: the last one holds.
        let mut operations = BTreeMap::new();
        for step in steps {
            match step {
                Step::Expect { key, revision } => {
                    let path = self.etcd.key(&key);
                    compares.push(match revision {
                        Some(Revision(number)) => Compare::mod_revision(path, CompareOp::Equal, number),
                        None => Compare::version(path, CompareOp::Equal, 0),
                    });
                    expected.push((key, revision));
                }
                Step::Put { key, value } => {
                    let path = self.etcd.key(&key);
                    operations.insert(key, TxnOp::put(path, value, None));
                }
                Step::Delete { key } => {
                    let path = self.etcd.key(&key);
                    operations.insert(key, TxnOp::delete(path, None));
                }
            }
        }
        let found = expected.iter().map(|(key, _)| self.etcd.key(key));
        let found = std::iter::once(self.etcd.leader()).chain(found);
        let found: Vec<_> =
            found.map(|path| TxnOp::get(path, Some(GetOptions::new().with_keys_only()))).collect();
        let transaction =
            Txn::new().when(compares).and_then(operations.into_values().collect::<Vec<_>>()).or_else(found);
        let answer = self.etcd.kv.clone().txn(transaction).await;
        let answer =
            answer.map_err(|source| StoreError::Etcd { what: "write to etcd".to_owned(), source })?;
        if answer.succeeded() {
            return Ok(Revision(answer.header().map_or(0, |header| header.revision())));
        }
        let mut found = answer.op_responses().into_iter().map(|response| match response {
            TxnOpResponse::Get(get) => {
                get.kvs().first().map(|pair| (pair.create_revision(), pair.mod_revision()))
            }
            _ => None,
        });
        if found.next().flatten().map(|(made, _)| made) != Some(self.since) {
            return Err(StoreError::Deposed);
        }
        let differs = expected.into_iter().zip(found).find(|((_, expected), found)| {
            expected.map(|Revision(number)| number) != found.map(|(_, changed)| changed)
        });
        // What was refused and is as expected a moment later cannot be: both are of one moment.
        Err(StoreError::Conflict { key: differs.map(|((key, _), _)| key).unwrap_or_default() })
    }
}
