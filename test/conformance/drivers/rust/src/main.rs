//! Runs one SDK for Rust against the addresses that the plan on standard input names,
//! and prints what the SDK said of each: see ../../run.js. Each SDK is a function that
//! makes every kind of call and returns when the SDK has nothing left to do.

use std::collections::HashMap;
use std::fmt::Display;
use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{json, Value};

/// 2026-01-02T03:04:05.678Z.
const THEN_MS: i64 = 1_767_323_045_678;

/// A scenario, and what the SDK said of it.
#[derive(Clone)]
struct Env {
    url: String,
    key: String,
    errors: Arc<Mutex<Vec<String>>>,
}

impl Env {
    fn fail(&self, err: impl Display) {
        self.errors.lock().unwrap().push(err.to_string());
    }

    fn check<T, E: Display>(&self, what: &str, r: Result<T, E>) {
        if let Err(err) = r {
            self.fail(format!("{what}: {err}"));
        }
    }
}

fn block_on<F: std::future::Future>(f: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(f)
}

fn segment(env: &Env) {
    use segment::message::{Alias, Group, Identify, Page, Screen, Track, User};
    use segment::{Batcher, Client, HttpClient};
    let maria = || User::UserId { user_id: "maria".into() };
    let then = time::OffsetDateTime::from_unix_timestamp_nanos(THEN_MS as i128 * 1_000_000).unwrap();
    let client = HttpClient::new(reqwest::Client::new(), env.url.clone());
    let mut batch = Batcher::new(None);
    let pushed = [
        batch.push(Track { user: maria(), event: "Item Scanned".into(), properties: json!({"sku": "4006"}), context: Some(json!({"groupId": "corner-shop"})), timestamp: Some(then), ..Default::default() }),
        batch.push(Identify { user: User::Both { user_id: "maria".into(), anonymous_id: "anon-1".into() }, traits: json!({"plan": "pro"}), ..Default::default() }),
        batch.push(Group { user: maria(), group_id: "corner-shop".into(), traits: json!({"seats": 3}), ..Default::default() }),
        batch.push(Page { user: maria(), name: "Cart".into(), properties: json!({"path": "/cart"}), ..Default::default() }),
        batch.push(Screen { user: User::AnonymousId { anonymous_id: "anon-1".into() }, name: "Home".into(), properties: json!({}), ..Default::default() }),
        batch.push(Alias { user: maria(), previous_id: "maria-old".into(), ..Default::default() }),
    ];
    for p in pushed {
        env.check("push", p);
    }
    block_on(async {
        env.check("batch", client.send(env.key.clone(), batch.into_message()).await);
        let one = Track { user: maria(), event: "At Once".into(), properties: json!({}), ..Default::default() };
        env.check("track", client.send(env.key.clone(), one.into()).await);
    });
}

fn rudder(env: &Env) {
    use rudderanalytics::client::RudderAnalytics;
    use rudderanalytics::message::{Alias, Batch, BatchMessage, Group, Identify, Message, Page, Screen, Track};
    let maria = || Some("maria".to_string());
    let then = chrono::DateTime::from_timestamp_millis(THEN_MS);
    let client = RudderAnalytics::load(env.key.clone(), env.url.clone());
    let calls = [
        Message::Track(Track { user_id: maria(), event: "Item Scanned".into(), properties: Some(json!({"sku": "4006"})), context: Some(json!({"groupId": "corner-shop"})), original_timestamp: then, ..Default::default() }),
        Message::Identify(Identify { user_id: maria(), anonymous_id: Some("anon-1".into()), traits: Some(json!({"plan": "pro"})), ..Default::default() }),
        Message::Group(Group { user_id: maria(), group_id: "corner-shop".into(), traits: Some(json!({"seats": 3})), ..Default::default() }),
        Message::Page(Page { user_id: maria(), name: "Cart".into(), properties: Some(json!({"path": "/cart"})), ..Default::default() }),
        Message::Screen(Screen { anonymous_id: Some("anon-1".into()), name: "Home".into(), ..Default::default() }),
        Message::Alias(Alias { user_id: "maria".into(), previous_id: "maria-old".into(), ..Default::default() }),
        Message::Batch(Batch {
            batch: vec![
                BatchMessage::Track(Track { user_id: maria(), event: "Batched A".into(), ..Default::default() }),
                BatchMessage::Track(Track { user_id: maria(), event: "Batched B".into(), ..Default::default() }),
            ],
            ..Default::default()
        }),
    ];
    for m in calls {
        env.check("send", client.send(&m).map_err(|e| format!("{e:?}")));
    }
}

fn posthog(env: &Env) {
    use posthog_rs::{ClientOptionsBuilder, Event};
    let told = env.clone();
    let options = ClientOptionsBuilder::default()
        .api_key(env.key.clone())
        .host(env.url.clone())
        .on_error(move |err: &posthog_rs::PostHogError<'_>| told.fail(format!("{err:?}")))
        .build()
        .unwrap();
    let client = posthog_rs::client(options);
    let mut e = Event::new("Item Scanned", "maria");
    env.check("property", e.insert_prop("sku", "4006"));
    e.add_group("company", "corner-shop");
    env.check("timestamp", e.set_timestamp(chrono::DateTime::from_timestamp_millis(THEN_MS).unwrap()));
    client.capture(e);
    client.capture(Event::new_anon("Job Ran"));
    let mut e = Event::new("$set", "maria");
    env.check("property", e.insert_prop("$set", json!({"plan": "pro"})));
    client.capture(e);
    env.check("group", client.group_identify("company", "corner-shop", json!({"seats": 3})));
    client.alias("maria-old", "maria");
    client.flush();
    env.check("capture_immediate", client.capture_immediate(Event::new("At Once", "maria")).map_err(|e| format!("{e:?}")));
    client.shutdown();
}

fn mixpanel(env: &Env) {
    use mixpanel_rs::{Config, Event, Mixpanel};
    let (host, path) = env.url.trim_start_matches("http://").split_once('/').unwrap_or((env.url.trim_start_matches("http://"), ""));
    let client = Mixpanel::init(&env.key, Some(Config {
        host: host.into(), protocol: "http".into(), path: if path.is_empty() { String::new() } else { format!("/{path}/") }, ..Default::default()
    }));
    let props = |v: Value| -> HashMap<String, Value> { serde_json::from_value(v).unwrap() };
    block_on(async {
        env.check("track", client.track("Item Scanned", Some(props(json!({"distinct_id": "maria", "sku": "4006", "company": "corner-shop", "time": THEN_MS, "$insert_id": "m-track"})))).await);
        env.check("track_batch", client.track_batch(vec![
            Event { event: "A".into(), properties: props(json!({"distinct_id": "maria", "q": ">>>???ü"})) },
            Event { event: "B".into(), properties: props(json!({"distinct_id": "maria"})) },
        ]).await);
        env.check("alias", client.alias("anon-1", "maria").await);
        let people = &client.people;
        env.check("set", people.set("maria", props(json!({"plan": "pro"})), None).await);
        env.check("set once", people.set_once("maria", props(json!({"first": 1})), None).await);
        env.check("increment", people.increment("maria", HashMap::from([("logins".to_string(), 1)]), None).await);
        env.check("append", people.append("maria", props(json!({"tags": "a"})), None).await);
        env.check("union", people.union("maria", props(json!({"list": ["x"]})), None).await);
        env.check("remove", people.remove("maria", props(json!({"list": "x"})), None).await);
        env.check("unset", people.unset("maria", vec!["plan".to_string()], None).await);
        env.check("delete", people.delete_user("jo", None).await);
        env.check("group set", client.groups.set("company", "corner-shop", props(json!({"seats": 3})), None).await);
    });
}

fn cloudevents(env: &Env) {
    use cloudevents::binding::reqwest::RequestBuilderExt;
    use cloudevents::{Event, EventBuilder, EventBuilderV10};
    let event = |id: &str| -> Event {
        EventBuilderV10::new()
            .id(id).source("/pos/7").ty("item.scanned").subject("corner shop")
            .time(chrono::DateTime::from_timestamp_millis(THEN_MS).unwrap())
            .extension("userid", "maria")
            .data("application/json", json!({"sku": "4006"}))
            .build().unwrap()
    };
    let client = reqwest::Client::new();
    let request = || client.post(&env.url).header("Authorization", format!("Bearer {}", env.key)).timeout(Duration::from_secs(20));
    block_on(async {
        for r in [request().event(event("binary")), request().events(vec![event("b-1"), event("b-2")])] {
            match r.expect("an event that can be written").send().await {
                Ok(answer) if answer.status().is_success() => {}
                Ok(answer) => env.fail(format!("{} {}", answer.status(), answer.text().await.unwrap_or_default())),
                Err(err) => env.fail(err),
            }
        }
    });
}

fn otlp(env: &Env) {
    use opentelemetry::logs::{AnyValue, LogRecord, Logger, LoggerProvider, Severity};
    use opentelemetry::InstrumentationScope;
    use opentelemetry_otlp::{Compression, LogExporter, WithExportConfig, WithHttpConfig};
    let exporter = LogExporter::builder()
        .with_http()
        .with_endpoint(format!("{}/v1/logs", env.url))
        .with_timeout(Duration::from_secs(10))
        .with_compression(Compression::Gzip)
        .with_headers(HashMap::from([("Authorization".to_string(), format!("Bearer {}", env.key))]))
        .build()
        .unwrap();
    let provider = opentelemetry_sdk::logs::SdkLoggerProvider::builder().with_batch_exporter(exporter).build();
    let logger = provider.logger_with_scope(InstrumentationScope::builder("scanner").with_version("1.0").build());
    let mut record = logger.create_log_record();
    record.set_event_name("item.scanned");
    record.set_timestamp(UNIX_EPOCH + Duration::from_millis(THEN_MS as u64));
    record.set_severity_number(Severity::Info);
    for (k, v) in [("user.id", AnyValue::from("maria")), ("account.id", "corner-shop".into()), ("sku", "4006".into()), ("price", 1.5.into()), ("ok", true.into())] {
        record.add_attribute(k, v);
    }
    logger.emit(record);
    env.check("flush", provider.force_flush());
    env.check("shutdown", provider.shutdown());
}

fn main() {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).unwrap();
    let plan: Value = serde_json::from_str(&text).unwrap();
    let run: fn(&Env) = match plan["sdk"].as_str().unwrap() {
        "segment-rust" => segment,
        "rudder-rust" => rudder,
        "posthog-rust" => posthog,
        "mixpanel-rust" => mixpanel,
        "cloudevents-rust" => cloudevents,
        "otlp-rust" => otlp,
        other => panic!("no driver for {other}"),
    };
    let mut results = serde_json::Map::new();
    for s in plan["scenarios"].as_array().unwrap() {
        let text = |k: &str| s[k].as_str().unwrap().to_string();
        let env = Env { url: text("url"), key: text("key"), errors: Default::default() };
        run(&env);
        let errors = env.errors.lock().unwrap().clone();
        results.insert(text("name"), json!({"errors": errors, "crashes": []}));
    }
    println!("\nRESULT {}", Value::Object(results));
}
