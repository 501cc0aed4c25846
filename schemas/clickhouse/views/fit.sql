{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `saw_signup_page` UInt64 COMMENT 'People who first saw a sign-up page in the range',
    `signed_up_after_page` UInt64 COMMENT 'Those of them who signed up at or after it, whenever',
    `signup_rate` Nullable(Float64) COMMENT 'signed_up_after_page / saw_signup_page',
    `mean_seconds_to_signup` Nullable(Float64) COMMENT 'Mean time from the page to the sign-up',
    `median_seconds_to_signup` Nullable(Float64) COMMENT 'Median of it',
    `signups` UInt64 COMMENT 'People who first signed up in the range',
    `activated` UInt64 COMMENT 'Those of them with an activation event at or after it, whenever',
    `activation_rate` Nullable(Float64) COMMENT 'activated / signups',
    `median_seconds_to_activation` Nullable(Float64) COMMENT 'Median time from sign-up to activation',
    `new_subscribers` UInt64 COMMENT 'People who first subscribed in the range',
    `new_paying` UInt64 COMMENT 'People who first paid in the range',
    `converted` UInt64 COMMENT 'Of the signups those who paid at or after it, whenever',
    `free_to_paid_rate` Nullable(Float64) COMMENT 'converted / signups',
    `median_seconds_to_paid` Nullable(Float64) COMMENT 'Median time from sign-up to payment'
)
{{.Definer}}
COMMENT 'Product-market fit of a range: sign-up rate, activation, free-to-paid conversion, and how long they take. Parameters: app, from, to, zone.'
AS
WITH at -> ifNull(toDate(at, {zone:String}) >= {from:Date} AND toDate(at, {zone:String}) < {to:Date}, 0) AS within, (a, b) -> ifNull(b >= a, 0) AS reached,
    (a, b) -> (toUnixTimestamp64Micro(assumeNotNull(b)) - toUnixTimestamp64Micro(assumeNotNull(a))) / 1000000 AS seconds
SELECT toLowCardinality({app:String}) AS app_id, countIf(within(signup_page_at)) AS saw_signup_page, countIf(within(signup_page_at) AND reached(signup_page_at, signup_at)) AS signed_up_after_page,
    signed_up_after_page / nullIf(saw_signup_page, 0) AS signup_rate,
    avgOrNullIf(seconds(signup_page_at, signup_at), within(signup_page_at) AND reached(signup_page_at, signup_at)) AS mean_seconds_to_signup,
    quantileExactInclusiveOrNullIf(0.5)(seconds(signup_page_at, signup_at), within(signup_page_at) AND reached(signup_page_at, signup_at)) AS median_seconds_to_signup,
    countIf(within(signup_at)) AS signups, countIf(within(signup_at) AND reached(signup_at, activation_at)) AS activated, activated / nullIf(signups, 0) AS activation_rate,
    quantileExactInclusiveOrNullIf(0.5)(seconds(signup_at, activation_at), within(signup_at) AND reached(signup_at, activation_at)) AS median_seconds_to_activation,
    countIf(within(subscription_at)) AS new_subscribers, countIf(within(paid_at)) AS new_paying,
    countIf(within(signup_at) AND reached(signup_at, paid_at)) AS converted, converted / nullIf(signups, 0) AS free_to_paid_rate,
    quantileExactInclusiveOrNullIf(0.5)(seconds(signup_at, paid_at), within(signup_at) AND reached(signup_at, paid_at)) AS median_seconds_to_paid
FROM ({{template "milestones" .Insight}})
