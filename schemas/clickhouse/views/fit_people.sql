{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `actor_kind` String COMMENT 'user, or anonymous for a visitor who is not known to be a user',
    `actor_id` String COMMENT 'User id or anonymous id',
    `account_id` String COMMENT 'Account of the last event; empty: none is known',
    `first_seen_at` DateTime64(6, 'UTC') COMMENT 'First event of any kind, also as a visitor',
    `signup_page_at` Nullable(DateTime64(6, 'UTC')) COMMENT 'First view of a sign-up page; NULL: never',
    `signup_at` Nullable(DateTime64(6, 'UTC')) COMMENT 'First sign-up',
    `activation_at` Nullable(DateTime64(6, 'UTC')) COMMENT 'First activation event',
    `value_at` Nullable(DateTime64(6, 'UTC')) COMMENT 'First value event',
    `subscription_at` Nullable(DateTime64(6, 'UTC')) COMMENT 'First subscription',
    `paid_at` Nullable(DateTime64(6, 'UTC')) COMMENT 'First payment'
)
{{.Definer}}
COMMENT 'The first event and the first of each defined milestone of every person, of all time. Parameters: app.'
AS
SELECT toLowCardinality({app:String}) AS app_id, actor_kind, actor_id, account_id, first_seen_at, signup_page_at, signup_at, activation_at, value_at, subscription_at, paid_at
FROM ({{template "milestones" .Insight}})
