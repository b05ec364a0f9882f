//! What a store does, whatever it is kept in.

use serde_json::json;

use super::super::{Store, StoreError, Transaction};
use super::all;

/// `open` gives an empty one.
pub(super) async fn keeps_the_contract(open: impl AsyncFn() -> Store) {
    a_list_holds_what_begins_with_the_prefix_and_nothing_else(open().await).await;
    a_long_list_is_whole_and_in_order(open().await).await;
    what_keys_branch_into_is_told_once_each(open().await).await;
    a_transaction_whose_expectation_fails_changes_nothing(open().await).await;
    of_two_steps_for_one_key_the_later_holds(open().await).await;
    a_large_transaction_is_made_as_a_whole(open().await).await;
    concurrent_updates_all_count(open().await).await;
    a_value_of_another_type_is_named_in_the_error(open().await).await;
}

async fn a_list_holds_what_begins_with_the_prefix_and_nothing_else(store: Store) {
    for key in ["service", "service/a", "service/b/c", "service0", "services/a", "app/a"] {
        store.put(key, &0_u32).await.unwrap();
    }
    let keys: Vec<_> = all(&store, "service/").await.into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["service/a", "service/b/c"]);
}

async fn a_long_list_is_whole_and_in_order(store: Store) {
    for first in (0..1300_u32).step_by(100) {
        let many = (first..first + 100).fold(Transaction::new(), |transaction, number| {
            transaction.put(&format!("key/{number:04}"), &number)
        });
        store.commit(many).await.unwrap();
    }
    let expected: Vec<_> = (0..1300).map(|number| (format!("key/{number:04}"), number)).collect();
    assert_eq!(all(&store, "key/").await, expected);
}

async fn what_keys_branch_into_is_told_once_each(store: Store) {
    for key in ["to/b/1", "to/b/2/x", "to/a/1", "to/b-c/1", "to/b0/1", "to/c", "t/a", "to0/z/1"] {
        store.put(key, &0_u32).await.unwrap();
    }
    assert_eq!(store.branches("to/").await.unwrap(), ["a", "b-c", "b", "b0", "c"]);
    assert_eq!(store.branches("nothing/").await.unwrap(), Vec::<String>::new());
}

async fn a_transaction_whose_expectation_fails_changes_nothing(store: Store) {
    store.put("a", &1_u32).await.unwrap();
    let seen = store.get::<u32>("a").await.unwrap().unwrap();
    store.put("a", &2_u32).await.unwrap();
    let stale = Transaction::new().put("b", &9_u32).expect("a", Some(seen.revision)).put("a", &3_u32);
    let refused = store.commit(stale).await;
    assert!(matches!(refused, Err(StoreError::Conflict { key }) if key == "a"));
    assert_eq!(all(&store, "").await, [("a".to_owned(), 2)]);
    let now = store.get::<u32>("a").await.unwrap().unwrap();
    let taken = Transaction::new().expect("a", Some(now.revision)).expect_absent("c").expect_absent("a");
    assert!(matches!(store.commit(taken.put("a", &4_u32)).await, Err(StoreError::Conflict { .. })));
    let right =
        Transaction::new().expect("a", Some(now.revision)).expect_absent("c").put("c", &5_u32).delete("a");
    store.commit(right).await.unwrap();
    assert_eq!(all(&store, "").await, [("c".to_owned(), 5)]);
}

async fn of_two_steps_for_one_key_the_later_holds(store: Store) {
    let transaction = Transaction::new().put("a", &1_u32).delete("a").put("b", &1_u32).put("b", &2_u32);
    store.commit(transaction).await.unwrap();
    assert_eq!(all(&store, "").await, [("b".to_owned(), 2)]);
}

async fn a_large_transaction_is_made_as_a_whole(store: Store) {
    let many = (0..1000_u32).fold(Transaction::new(), |transaction, number| {
        let key = format!("key/{number}");
        transaction.expect_absent(&key).put(&key, &json!({ "number": number }))
    });
    store.commit(many).await.unwrap();
    assert_eq!(store.list::<serde_json::Value>("key/").await.unwrap().len(), 1000);
}

async fn concurrent_updates_all_count(store: Store) {
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                store.update("n", |n: Option<u32>| (Some(n.unwrap_or(0) + 1), ())).await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(store.get::<u32>("n").await.unwrap().unwrap().value, 50);
}

async fn a_value_of_another_type_is_named_in_the_error(store: Store) {
    store.put("a", "text").await.unwrap();
    let error = store.get::<u32>("a").await.unwrap_err();
    assert_eq!(error.to_string(), "decode a from the store");
}
