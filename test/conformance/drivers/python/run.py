"""Runs one SDK for Python against the addresses that the plan on standard input
names, and prints what the SDK said of each: see ../run.js.

Each SDK is a function of env, which has url and key, and of what to call with what it
says; it makes every kind of call, and returns when the SDK has nothing left to do.
"""

import json
import sys
import threading
import traceback
from datetime import datetime, timezone
from urllib.parse import urlsplit

THEN = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=timezone.utc)


def segment(env, fail):
    from segment.analytics.client import Client

    client = Client(env["key"], host=env["url"], on_error=lambda err, _: fail(err), upload_interval=0.2)
    spread(client)


def rudder(env, fail):
    from rudderstack.analytics.client import Client

    client = Client(env["key"], host=env["url"], on_error=lambda err, _: fail(err), upload_interval=0.2, gzip=True)
    spread(client)


def spread(client):
    """Makes the calls of Segment's SDK and of RudderStack's, which are the same."""
    client.track("maria", "Item Scanned", {"sku": "4006"}, {"groupId": "corner-shop"}, THEN)
    client.identify("maria", {"plan": "pro"}, anonymous_id="anon-1")
    client.group("maria", "corner-shop", {"seats": 3})
    client.page("maria", "Shop", "Cart", {"path": "/cart"})
    client.screen(name="Home", anonymous_id="anon-1")
    client.alias("maria-old", "maria")
    client.shutdown()


def posthog(env, fail):
    from posthog import Posthog

    client = Posthog(env["key"], host=env["url"], on_error=lambda err, _: fail(err), flush_interval=0.2)
    client.capture("Item Scanned", distinct_id="maria", properties={"sku": "4006"}, timestamp=THEN, groups={"company": "corner-shop"})
    client.capture("Job Ran")
    client.set(distinct_id="maria", properties={"plan": "pro"})
    client.set_once(distinct_id="maria", properties={"since": 2020})
    client.group_identify("company", "corner-shop", {"seats": 3})
    client.alias("maria-old", "maria")
    client.shutdown()


def mixpanel(env, fail):
    from mixpanel import BufferedConsumer, Consumer, Mixpanel

    at = env["url"].rstrip("/")
    urls = {"events_url": at + "/track", "people_url": at + "/engage", "import_url": at + "/import", "groups_url": at + "/groups"}
    client = Mixpanel(env["key"], Consumer(**urls))
    at = int(THEN.timestamp())
    client.track("maria", "Item Scanned", {"sku": "4006", "company": "corner-shop", "time": at})
    client.import_data(env["key"], "maria", "Old", 1577836800, api_secret="secret")
    # alias() goes to api.mixpanel.com whatever consumer there is.
    client.people_set("maria", {"plan": "pro"})
    client.people_set_once("maria", {"first": 1})
    client.people_increment("maria", {"logins": 1})
    client.people_append("maria", {"tags": "a"})
    client.people_union("maria", {"list": ["x"]})
    client.people_remove("maria", {"list": "x"})
    client.people_unset("maria", ["plan"])
    client.people_delete("jo")
    client.group_set("company", "corner-shop", {"seats": 3})
    buffered = BufferedConsumer(**urls)
    client = Mixpanel(env["key"], buffered)
    client.track("maria", "Buffered A", {"q": ">>>???ü"})
    client.track("maria", "Buffered B")
    buffered.flush()


def amplitude(env, fail):
    from amplitude import Amplitude, BaseEvent, Config, EventOptions, Identify, Revenue

    sent = []

    def told(event, code, message=None):
        sent.append(event)
        if code != 200:
            fail(f"{code} {message}")

    client = Amplitude(env["key"], Config(flush_interval_millis=200, server_url=env["url"] + "/2/httpapi", callback=told))
    who = EventOptions(user_id="maria", device_id="d-1")
    client.track(BaseEvent("Item Scanned", user_id="maria", device_id="d-1", insert_id="m-track", time=int(THEN.timestamp() * 1000), event_properties={"sku": "4006"}, groups={"company": "corner-shop"}))
    traits = Identify()
    traits.set("plan", "pro").set_once("first", 1).add("logins", 1).append("tags", "a").unset("gone")
    client.identify(traits, who)
    client.set_group("company", "corner-shop", who)
    seats = Identify()
    seats.set("seats", 3)
    client.group_identify("company", "corner-shop", seats, who)
    client.revenue(Revenue(price=2.5, quantity=2, product_id="p-1"), who)
    wait(lambda: len(sent) >= 5, 30)
    client.shutdown()


def moesif(env, fail):
    from moesifapi.configuration import Configuration
    from moesifapi.models import CompanyModel, EventModel, EventRequestModel, EventResponseModel, SubscriptionModel, UserModel
    from moesifapi.moesif_api_client import MoesifAPIClient

    Configuration.BASE_URI = env["url"]
    api = MoesifAPIClient(env["key"]).api
    api.update_user(UserModel(user_id="maria", company_id="corner-shop", metadata={"plan": "pro"}))
    api.update_users_batch([UserModel(user_id="jo"), UserModel(user_id="ann")])
    api.update_company(CompanyModel(company_id="corner-shop", company_domain="corner.example", metadata={"seats": 3}))
    api.update_subscription(SubscriptionModel(subscription_id="s-1", company_id="corner-shop", status="active"))
    api.create_event(EventModel(
        request=EventRequestModel(time=THEN.isoformat(), uri="https://shop.example/v1/orders/4711?x=1", verb="POST", headers={"Authorization": "Bearer secret"}),
        response=EventResponseModel(time=THEN.isoformat(), status=201, headers={}),
        user_id="maria", company_id="corner-shop", metadata={"region": "eu"}, transaction_id="m-call",
    ))


def cloudevents(env, fail):
    import requests
    from cloudevents.core.bindings.http import to_binary_event, to_structured_event
    from cloudevents.core.v1.event import CloudEvent

    def send(message):
        headers = {**message.headers, "Authorization": "Bearer " + env["key"]}
        r = requests.post(env["url"], data=message.body, headers=headers, timeout=20)
        if r.status_code >= 300:
            fail(f"{r.status_code} {r.text}")

    def event(id):
        return CloudEvent({"id": id, "source": "/pos/7", "type": "item.scanned", "specversion": "1.0", "subject": "corner shop", "time": THEN, "datacontenttype": "application/json", "userid": "maría"}, {"sku": "4006"})

    send(to_binary_event(event("binary")))
    send(to_structured_event(event("structured")))


def otlp(env, fail):
    import logging

    from opentelemetry._logs import LogRecord, SeverityNumber
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
    from opentelemetry.sdk.resources import Resource

    class Handler(logging.Handler):
        def emit(self, record):
            fail(record.getMessage())

    logging.getLogger("opentelemetry.exporter.otlp.proto.http._log_exporter").addHandler(Handler(level=logging.ERROR))
    exporter = OTLPLogExporter(endpoint=env["url"] + "/v1/logs", headers={"Authorization": "Bearer " + env["key"]}, timeout=10, compression=Compression.Gzip)
    provider = LoggerProvider(resource=Resource.create({"service.name": "shop"}))
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    logger = provider.get_logger("scanner", "1.0")

    attributes = {"user.id": "maria", "account.id": "corner-shop", "sku": "4006", "price": 1.5, "ok": True}
    logger.emit(LogRecord(timestamp=int(THEN.timestamp() * 1000) * 1000000, event_name="item.scanned", severity_number=SeverityNumber.INFO, attributes=attributes))
    provider.shutdown()


SDKS = {f.__name__: f for f in (segment, rudder, posthog, mixpanel, amplitude, moesif, cloudevents, otlp)}


def wait(done, seconds):
    """Waits until done() or for so many seconds."""
    end = threading.Event()
    for _ in range(seconds * 20):
        if done():
            return
        end.wait(0.05)


def main():
    plan = json.load(sys.stdin)
    run = SDKS[plan["sdk"].removesuffix("-python")]
    results = {}
    for env in plan["scenarios"]:
        said = results[env["name"]] = {"errors": [], "crashes": []}

        def fail(err, said=said):
            said["errors"].append(str(err))

        try:
            run(env, fail)
        except Exception as err:  # noqa: BLE001 - whatever it is, it is what the SDK says
            traceback.print_exc()
            fail(repr(err))
    print("\nRESULT " + json.dumps(results), flush=True)


main()
