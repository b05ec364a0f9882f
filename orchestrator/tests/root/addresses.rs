//! Service addresses: given once, kept, given back; and who is told of changes.

use std::collections::HashSet;

use orchestrator::registration::CLUSTER_HEADER;
use reqwest::Method;
use serde_json::{Value, json};

use crate::bed::{Answer, Bed, web, web_at};
use crate::cluster::Cluster;

#[tokio::test]
async fn worker_subnets_are_never_given_twice_not_even_by_a_root_that_was_restarted() {
    let bed = Bed::start().await;
    let first = bed.net(Method::GET, "/api/net/subnet", None).await.ok();
    assert_eq!(first, json!({ "subnet_addr": "10.18.0.0", "subnet_addr_v6": "fc00::" }));
    let mut given = HashSet::from([first["subnet_addr"].to_string()]);
    for answer in
        futures::future::join_all((0..20).map(|_| bed.net(Method::GET, "/api/net/subnet", None))).await
    {
        assert!(given.insert(answer.ok()["subnet_addr"].to_string()));
    }
    let bed = bed.restart().await;
    let next = bed.net(Method::GET, "/api/net/subnet", None).await.ok();
    assert_eq!(next["subnet_addr"], "10.18.5.64", "the 22nd block of 64");
}

#[tokio::test]
async fn a_block_comes_back_from_the_cluster_that_has_it_and_from_nobody_else() {
    let bed = Bed::start().await;
    let of_nobody = bed.net(Method::GET, "/api/net/subnet", None).await.ok();
    assert_eq!(of_nobody["subnet_addr"], "10.18.0.0");
    let home = Cluster::join(&bed, "home").await;
    let as_cluster = |method: Method, path: &str, id: &str| {
        bed.net_request(method, path).header(CLUSTER_HEADER, id.to_owned())
    };
    let given = as_cluster(Method::GET, "/api/net/subnet", &home.id).send().await.unwrap();
    assert_eq!(given.json::<Value>().await.unwrap()["subnet_addr"], "10.18.0.64");
    let back = async |path: &str, id: &str| {
        let answer = as_cluster(Method::DELETE, path, id).send().await.unwrap();
        answer.status().as_u16()
    };
    let stranger = "6b033dc52c1f07cbdcd8843f";
    assert_eq!(back("/api/net/subnet/10_18_0_64", stranger).await, 400);
    assert_eq!(back("/api/net/subnet/10_18_0_0", &home.id).await, 404, "given to nobody who is known");
    for path in ["/api/net/subnet/10_18_0_1", "/api/net/subnet/10_30_0_0", "/api/net/subnet/x"] {
        assert_eq!(back(path, &home.id).await, 404, "{path}");
    }
    assert_eq!(back("/api/net/subnet/10_18_0_64", &home.id).await, 200);
    assert_eq!(back("/api/net/subnet/10_18_0_64", &home.id).await, 404, "it has it no more");
    let next = bed.net(Method::GET, "/api/net/subnet", None).await.ok();
    assert_eq!(next["subnet_addr"], "10.18.0.128", "others come first");
}

#[tokio::test]
async fn a_table_is_found_by_name_and_by_every_address() {
    let bed = Bed::start().await;
    let cluster = Cluster::join(&bed, "lab").await;
    let service = bed.service("shop", web_at("10.30.30.30")).await;
    bed.deploy(&service).await;
    cluster.told(&format!("POST /api/service/{service}/0")).await;
    for path in [
        "/api/net/service/shop_test_web_test/instances",
        "/api/net/service/ip/10_30_30_30/instances",
        "/api/net/service/ip/10_30_0_0/instances",
        "/api/net/service/ip/fdff:2000::1e1e/instances",
        "/api/net/service/ip/fdff::/instances",
    ] {
        let table = bed.net(Method::GET, path, None).await.ok();
        assert_eq!(table["job_name"], "shop.test.web.test", "{path}");
        assert_eq!(
            table["service_ip_list"],
            json!([{ "IpType": "RR", "Address": "10.30.30.30", "Address_v6": "fdff:2000::1e1e" }])
        );
        let instance = &table["instance_list"][0];
        assert_eq!(instance["instance_ip"], "10.30.0.0", "the first of the pool");
        assert_eq!(instance["cluster_id"], json!(cluster.id));
        assert_eq!(instance["namespace_ip"], json!(null), "it does not run yet");
    }
    for path in ["ip/10_30_9_9", "ip/fdff::99", "shop_test_db_test", "nonsense"] {
        bed.net(Method::GET, &format!("/api/net/service/{path}/instances"), None).await.is(404);
    }
}

/// A service whose author has chosen everything that can be chosen.
fn choosy() -> Value {
    let mut service = web();
    service["addresses"] = json!({
        "rr_ip": "10.30.30.30", "rr_ip_v6": "fdff:2000::1:1",
        "closest_ip": "10.30.30.31", "closest_ip_v6": "fdff:1000::1:1",
        "instances": [{"from": 1, "to": 2, "start": "10.30.40.253"}],
    });
    service
}

#[tokio::test]
async fn chosen_addresses_of_each_kind_are_in_the_table_and_lead_to_it() {
    let bed = Bed::start().await;
    let cluster = Cluster::join(&bed, "lab").await;
    let service = bed.service("shop", choosy()).await;
    for number in 0..4 {
        bed.deploy(&service).await;
        cluster.told(&format!("POST /api/service/{service}/{number}")).await;
    }
    let service_ips = json!([
        { "IpType": "RR", "Address": "10.30.30.30", "Address_v6": "fdff:2000::1:1" },
        { "IpType": "Closest", "Address": "10.30.30.31", "Address_v6": "fdff:1000::1:1" },
    ]);
    for address in [
        "10_30_30_30",
        "fdff:2000::1:1",
        "10_30_30_31",
        "fdff:1000:0:0::1:1",
        "10_30_41_0",
        "fdff::2900",
        "10_30_0_0",
        "fdff::",
    ] {
        let path = format!("/api/net/service/ip/{address}/instances");
        let table = bed.net(Method::GET, &path, None).await.ok();
        assert_eq!(table["service_ip_list"], service_ips, "{address}");
        let own: Vec<_> = (0..4)
            .map(|n| table["instance_list"][n]["instance_ip"].as_str().unwrap_or("").to_owned())
            .collect();
        assert_eq!(own, ["10.30.0.0", "10.30.40.253", "10.30.41.0", "10.30.0.3"], "{address}");
    }
}

#[tokio::test]
async fn a_closest_address_that_is_half_chosen_gets_its_other_half() {
    let bed = Bed::start().await;
    Cluster::join(&bed, "lab").await;
    let mut one = web();
    one["addresses"] = json!({ "rr_ip": "10.30.30.30", "closest_ip": "10.30.1.2" });
    bed.service("one", one).await;
    let mut two = web();
    two["addresses"] = json!({ "rr_ip": "10.30.30.31", "closest_ip_v6": "fdff:1000::9:9" });
    bed.service("two", two).await;
    for (name, address, address_v6) in
        [("one", "10.30.1.2", "fdff:1000::102"), ("two", "10.30.0.0", "fdff:1000::9:9")]
    {
        let path = format!("/api/net/service/{name}_test_web_test/instances");
        let table = bed.net(Method::GET, &path, None).await.ok();
        let closest = json!({ "IpType": "Closest", "Address": address, "Address_v6": address_v6 });
        assert_eq!(table["service_ip_list"][1], closest, "{name}");
    }
    let by_address = bed.net(Method::GET, "/api/net/service/ip/fdff:1000::102/instances", None).await.ok();
    assert_eq!(by_address["job_name"], "one.test.web.test");
}

#[tokio::test]
async fn a_chosen_address_is_the_services_alone_until_it_is_deleted() {
    let bed = Bed::start().await;
    let cluster = Cluster::join(&bed, "lab").await;
    let service = bed.service("shop", choosy()).await;
    for number in 0..2 {
        bed.deploy(&service).await;
        cluster.told(&format!("POST /api/service/{service}/{number}")).await;
    }
    // Its instance 1 goes, and with the number goes the use of its address, but nobody else gets it.
    bed.delete(&format!("/api/service/{service}/instance/1")).await.ok();
    let bed = bed.restart().await;
    for (field, value) in [
        ("rr_ip", json!("10.30.30.31")),
        ("rr_ip_v6", json!("fdff:2000::1:1")),
        ("closest_ip", json!("10.30.30.30")),
        ("closest_ip_v6", json!("fdff:1000::1:1")),
        ("instances", json!([{"from": 0, "to": 0, "start": "10.30.40.253"}])),
    ] {
        let mut thief = web();
        thief["addresses"] = json!({ field: value });
        let refused = bed.post("/api/application", crate::bed::sla("thief", thief)).await.is(422);
        let said = refused.to_string();
        assert!(said.contains(&format!("addresses.{field}")) && said.contains("taken by another"), "{said}");
    }
    bed.delete(&format!("/api/service/{service}")).await.ok();
    bed.service("heir", choosy()).await;
}

#[tokio::test]
async fn clusters_that_asked_are_told_of_changes_until_they_lose_interest() {
    let bed = Bed::start().await;
    let cluster = Cluster::join(&bed, "lab").await;
    let service = bed.service("shop", web()).await;
    let table = "/api/net/service/shop_test_web_test/instances";
    bed.net(Method::GET, table, None).await.ok();
    bed.deploy(&service).await;
    cluster.told(&format!("POST /api/service/{service}/0")).await;
    let place = json!({ "job_id": service, "instances": [{
        "instance_number": 0, "namespace_ip": "10.18.0.2", "namespace_ip_v6": "fc00::2",
        "host_ip": "192.0.2.31", "host_port": "50103", "location": "48.262,11.668",
    }] });
    bed.net(Method::POST, "/api/net/service/net_deploy_status", Some(place)).await.ok();
    let update = cluster.told("POST /api/net/job/update").await;
    assert_eq!(
        update.body,
        json!({ "job_name": "shop.test.web.test", "instance_number": 0, "type": "DEPLOYMENT" })
    );
    let instance = bed.net(Method::GET, table, None).await.ok()["instance_list"][0].clone();
    assert_eq!((&instance["namespace_ip"], &instance["host_port"]), (&json!("10.18.0.2"), &json!(50103)));
    assert_eq!(instance["location"], "48.262,11.668", "other clusters are to know how far it is");

    cluster.forget();
    bed.delete(&format!("/api/service/{service}/instance/0")).await.ok();
    assert_eq!(cluster.told("POST /api/net/job/update").await.body["type"], "UNDEPLOYMENT");

    bed.net(Method::DELETE, "/api/net/interest/shop.test.web.test", None).await.ok();
    cluster.forget();
    bed.deploy(&service).await;
    cluster.told(&format!("POST /api/service/{service}/1")).await;
    bed.delete(&format!("/api/service/{service}/instance/1")).await.ok();
    cluster.told(&format!("DELETE /api/service/{service}/1")).await;
    assert!(cluster.orders().iter().all(|order| !order.what.contains("/net/")), "{:?}", cluster.orders());
}

#[tokio::test]
async fn of_clusters_behind_one_address_that_one_is_told_which_names_itself() {
    let bed = Bed::start().await;
    let (one, other) = (Cluster::join(&bed, "one").await, Cluster::join(&bed, "other").await);
    let service = bed.service("shop", web()).await;
    let ask = |id: &str| {
        let table = bed.net_request(Method::GET, "/api/net/service/shop_test_web_test/instances");
        Answer::of(table.header(CLUSTER_HEADER, id))
    };
    ask(&one.id).await.ok();
    ask("6b033dd4d683569b0801fa18").await.is(400);
    bed.deploy(&service).await;
    bed.delete(&format!("/api/service/{service}/instance/0")).await.ok();
    one.told("POST /api/net/job/update").await;
    assert!(other.orders().iter().all(|order| !order.what.contains("/net/")), "{:?}", other.orders());
}

#[tokio::test]
async fn only_clusters_may_ask_for_tables() {
    let bed = Bed::start().await;
    bed.service("shop", web()).await;
    bed.net(Method::GET, "/api/net/service/shop_test_web_test/instances", None).await.is(400);
}

#[tokio::test]
async fn freed_addresses_are_free_again_and_others_stay_taken_over_a_restart() {
    let bed = Bed::start().await;
    let kept = bed.service("shop", web_at("10.30.1.1")).await;
    let gone = bed.service("bank", web_at("10.30.1.2")).await;
    bed.deploy(&kept).await;
    bed.deploy(&gone).await;
    bed.delete(&format!("/api/service/{gone}")).await.ok();
    let bed = bed.restart().await;
    bed.post("/api/application", crate::bed::sla("thief", web_at("10.30.1.1"))).await.is(422);
    bed.post("/api/application", crate::bed::sla("heir", web_at("10.30.1.2"))).await.ok();
}
