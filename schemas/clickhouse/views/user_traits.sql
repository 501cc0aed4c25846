{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `user_id` String COMMENT 'User id',
    `trait` String COMMENT 'Name of the trait; empty: the user itself, also one without traits',
    `value` String COMMENT 'JSON text of its value',
    `said_at` DateTime64(6, 'UTC') COMMENT 'Event time of the last call that stated it'
)
{{.Definer}}
COMMENT 'Traits of each user as of its last calls, one row for each trait'
AS
{{template "traits" .Of "user"}}
