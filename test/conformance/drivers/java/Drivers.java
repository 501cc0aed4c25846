import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.time.ZoneOffset;
import java.util.Collections;
import java.util.Date;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.json.JSONArray;
import org.json.JSONObject;

/**
 * Runs one SDK for Java against the addresses that the plan on standard input names,
 * and prints what the SDK said of each: see ../run.js. Each SDK is a method that
 * makes every kind of call and returns when the SDK has nothing left to do.
 */
public class Drivers {
  static final Instant THEN = Instant.parse("2026-01-02T03:04:05.678Z");

  /** A scenario, and what the SDK said of it. */
  static class Env {
    final String url, key;
    final List<String> errors = Collections.synchronizedList(new java.util.ArrayList<>());

    Env(JSONObject o) {
      url = o.getString("url");
      key = o.getString("key");
    }

    void fail(Object err) {
      errors.add(String.valueOf(err));
    }
  }

  interface Sdk {
    void run(Env env) throws Throwable;
  }

  static final Map<String, Sdk> SDKS = Map.of(
      "segment-java", Drivers::segment, "rudder-java", Drivers::rudder, "posthog-java", Drivers::posthog,
      "mixpanel-java", Drivers::mixpanel, "moesif-java", Drivers::moesif,
      "cloudevents-java", Drivers::cloudevents, "otlp-java", Drivers::otlp);

  static okhttp3.OkHttpClient client() {
    return new okhttp3.OkHttpClient.Builder().readTimeout(20, TimeUnit.SECONDS).build();
  }

  static void segment(Env env) throws Throwable {
    CountDownLatch told = new CountDownLatch(6);
    var analytics = com.segment.analytics.Analytics.builder(env.key).endpoint(env.url).client(client())
        .flushQueueSize(6)
        .callback(new com.segment.analytics.Callback() {
          public void success(com.segment.analytics.messages.Message m) { told.countDown(); }
          public void failure(com.segment.analytics.messages.Message m, Throwable err) { env.fail(err); told.countDown(); }
        }).build();
    analytics.enqueue(com.segment.analytics.messages.TrackMessage.builder("Item Scanned").userId("maria").timestamp(Date.from(THEN))
        .properties(Map.of("sku", "4006")).context(Map.of("groupId", "corner-shop")));
    analytics.enqueue(com.segment.analytics.messages.IdentifyMessage.builder().userId("maria").anonymousId("anon-1").traits(Map.of("plan", "pro")));
    analytics.enqueue(com.segment.analytics.messages.GroupMessage.builder("corner-shop").userId("maria").traits(Map.of("seats", 3)));
    analytics.enqueue(com.segment.analytics.messages.PageMessage.builder("Cart").userId("maria").properties(Map.of("path", "/cart")));
    analytics.enqueue(com.segment.analytics.messages.ScreenMessage.builder("Home").anonymousId("anon-1"));
    analytics.enqueue(com.segment.analytics.messages.AliasMessage.builder("maria-old").userId("maria"));
    await(env, told);
    analytics.shutdown();
  }

  static void rudder(Env env) throws Throwable {
    CountDownLatch told = new CountDownLatch(6);
    var analytics = com.rudderstack.sdk.java.analytics.RudderAnalytics.builder(env.key).setDataPlaneUrl(env.url).client(client()).setGZIP(true)
        .flushQueueSize(6)
        .callback(new com.rudderstack.sdk.java.analytics.Callback() {
          public void success(com.rudderstack.sdk.java.analytics.messages.Message m) { told.countDown(); }
          public void failure(com.rudderstack.sdk.java.analytics.messages.Message m, Throwable err) { env.fail(err); told.countDown(); }
        }).build();
    analytics.enqueue(com.rudderstack.sdk.java.analytics.messages.TrackMessage.builder("Item Scanned").userId("maria").timestamp(Date.from(THEN))
        .properties(Map.of("sku", "4006")).context(Map.of("groupId", "corner-shop")));
    analytics.enqueue(com.rudderstack.sdk.java.analytics.messages.IdentifyMessage.builder().userId("maria").anonymousId("anon-1").traits(Map.of("plan", "pro")));
    analytics.enqueue(com.rudderstack.sdk.java.analytics.messages.GroupMessage.builder("corner-shop").userId("maria").traits(Map.of("seats", 3)));
    analytics.enqueue(com.rudderstack.sdk.java.analytics.messages.PageMessage.builder("Cart").userId("maria").properties(Map.of("path", "/cart")));
    analytics.enqueue(com.rudderstack.sdk.java.analytics.messages.ScreenMessage.builder("Home").anonymousId("anon-1"));
    analytics.enqueue(com.rudderstack.sdk.java.analytics.messages.AliasMessage.builder("maria-old").userId("maria"));
    await(env, told);
    analytics.shutdown();
  }

  static void await(Env env, CountDownLatch told) throws InterruptedException {
    if (!told.await(45, TimeUnit.SECONDS)) {
      env.fail("no answer for " + told.getCount() + " messages");
    }
  }

  static void posthog(Env env) throws Throwable {
    var posthog = new com.posthog.server.PostHog();
    posthog.setup(new com.posthog.server.PostHogConfig.Builder(env.key).host(env.url).preloadFeatureFlags(false).remoteConfig(false).flushAt(100).flushIntervalSeconds(1).build());
    posthog.capture("maria", "Item Scanned", new com.posthog.server.PostHogCaptureOptions.Builder().property("sku", "4006")
        .group("company", "corner-shop").timestamp(THEN).build());
    posthog.identify("maria", Map.of("plan", "pro"));
    posthog.group("maria", "company", "corner-shop", Map.of("seats", 3));
    posthog.alias("maria", "maria-old");
    posthog.flush();
    Thread.sleep(8000); // nothing says when it has sent, and closing drops what it has not
    posthog.close();
  }

  static void mixpanel(Env env) throws Throwable {
    var api = new com.mixpanel.mixpanelapi.MixpanelAPI(env.url + "/track", env.url + "/engage", env.url + "/groups", env.url + "/import", true);
    var messages = new com.mixpanel.mixpanelapi.MessageBuilder(env.key);
    var delivery = new com.mixpanel.mixpanelapi.ClientDelivery();
    delivery.addMessage(messages.event("maria", "Item Scanned", new JSONObject().put("sku", "4006").put("company", "corner-shop").put("time", THEN.toEpochMilli()).put("$insert_id", "m-track")));
    delivery.addMessage(messages.importEvent("maria", "Old", new JSONObject().put("time", 1577836800000L).put("$insert_id", "m-old")));
    delivery.addMessage(messages.set("maria", new JSONObject().put("plan", "pro")));
    delivery.addMessage(messages.setOnce("maria", new JSONObject().put("first", 1)));
    delivery.addMessage(messages.increment("maria", Map.of("logins", 1L)));
    delivery.addMessage(messages.append("maria", new JSONObject().put("tags", "a")));
    delivery.addMessage(messages.union("maria", Map.of("list", new JSONArray().put("x"))));
    delivery.addMessage(messages.remove("maria", new JSONObject().put("list", "x")));
    delivery.addMessage(messages.unset("maria", List.of("plan")));
    delivery.addMessage(messages.delete("jo"));
    delivery.addMessage(messages.groupSet("company", "corner-shop", new JSONObject().put("seats", 3)));
    api.deliver(delivery);
    api.close();
  }

  static void moesif(Env env) throws Throwable {
    var config = new com.moesif.api.Configuration();
    config.applicationId = env.key;
    config.baseUri = env.url;
    var client = new com.moesif.api.MoesifAPIClient(config);
    var api = client.getAPI();
    api.updateUser(new com.moesif.api.models.UserBuilder().userId("maria").companyId("corner-shop").metadata(Map.of("plan", "pro")).build());
    api.updateUsersBatch(List.of(new com.moesif.api.models.UserBuilder().userId("jo").build(), new com.moesif.api.models.UserBuilder().userId("ann").build()));
    api.updateCompany(new com.moesif.api.models.CompanyBuilder().companyId("corner-shop").companyDomain("corner.example").metadata(Map.of("seats", 3)).build());
    api.updateSubscription(new com.moesif.api.models.SubscriptionBuilder().subscriptionId("s-1").companyId("corner-shop").status("active").build());
    api.createEvent(new com.moesif.api.models.EventBuilder()
        .request(new com.moesif.api.models.EventRequestBuilder().time(Date.from(THEN)).uri("https://shop.example/v1/orders/4711?x=1").verb("POST").headers(Map.of("Authorization", "Bearer secret")).build())
        .response(new com.moesif.api.models.EventResponseBuilder().time(Date.from(THEN.plusMillis(12))).status(201).build())
        .userId("maria").companyId("corner-shop").metadata(Map.of("region", "eu")).build());
  }

  static void cloudevents(Env env) throws Throwable {
    // The JDK's client makes question marks of letters beyond ASCII in header fields.
    cloudevent(env, "binary", "item.scanned", "maria", true);
    cloudevent(env, "structured", "item.scanned", "maría", false);
  }

  static void cloudevent(Env env, String id, String type, String user, boolean binary) throws Throwable {
    var event = io.cloudevents.core.builder.CloudEventBuilder.v1().withId(id).withSource(URI.create("/pos/7")).withType(type)
        .withSubject("corner shop").withTime(THEN.atOffset(ZoneOffset.UTC)).withExtension("userid", user)
        .withData("application/json", "{\"sku\":\"4006\"}".getBytes(StandardCharsets.UTF_8)).build();
    var request = HttpRequest.newBuilder(URI.create(env.url)).timeout(Duration.ofSeconds(20)).header("Authorization", "Bearer " + env.key);
    var writer = io.cloudevents.http.HttpMessageFactory.createWriter(request::header, body -> request.POST(HttpRequest.BodyPublishers.ofByteArray(body)));
    if (binary) {
      writer.writeBinary(event);
    } else {
      writer.writeStructured(event, "application/cloudevents+json");
    }
    var response = HttpClient.newHttpClient().send(request.build(), HttpResponse.BodyHandlers.ofString());
    if (response.statusCode() >= 300) {
      env.fail(response.statusCode() + " " + response.body());
    }
  }

  static void otlp(Env env) throws Throwable {
    var exporter = io.opentelemetry.exporter.otlp.http.logs.OtlpHttpLogRecordExporter.builder().setEndpoint(env.url + "/v1/logs")
        .addHeader("Authorization", "Bearer " + env.key).setCompression("gzip").setTimeout(Duration.ofSeconds(10)).build();
    var provider = io.opentelemetry.sdk.logs.SdkLoggerProvider.builder()
        .addLogRecordProcessor(io.opentelemetry.sdk.logs.export.BatchLogRecordProcessor.builder(exporter).build()).build();
    var logger = provider.loggerBuilder("scanner").setInstrumentationVersion("1.0").build();
    logger.logRecordBuilder().setTimestamp(THEN).setEventName("item.scanned").setAttribute("user.id", "maria")
        .setAttribute("account.id", "corner-shop").setAttribute("sku", "4006").setAttribute("price", 1.5).setAttribute("ok", true).emit();
    if (!provider.forceFlush().join(30, TimeUnit.SECONDS).isSuccess()) {
      env.fail("the export failed");
    }
    provider.close();
  }

  public static void main(String[] args) throws Exception {
    var plan = new JSONObject(new String(System.in.readAllBytes(), StandardCharsets.UTF_8));
    var sdk = SDKS.get(plan.getString("sdk"));
    var results = new JSONObject();
    for (Object o : plan.getJSONArray("scenarios")) {
      var env = new Env((JSONObject) o);
      try {
        sdk.run(env);
      } catch (Throwable err) {
        err.printStackTrace();
        env.fail(err);
      }
      results.put(((JSONObject) o).getString("name"), new JSONObject().put("errors", new JSONArray(env.errors)).put("crashes", new JSONArray()));
    }
    System.out.println("\nRESULT " + results);
    System.out.flush();
    System.exit(0); // some SDKs keep threads
  }
}
