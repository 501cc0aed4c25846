{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account',
    `trait` String COMMENT 'Name of the trait; empty: the account itself, also one without traits',
    `value` String COMMENT 'JSON text of its value',
    `said_at` DateTime64(6, 'UTC') COMMENT 'Event time of the last call that stated it'
)
{{.Definer}}
COMMENT 'Traits of each account as of its last calls, one row for each trait'
AS
{{template "traits" .Of "account"}}
