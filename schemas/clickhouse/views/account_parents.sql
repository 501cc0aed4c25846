{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Customer account; empty: none is known',
    `parent_account_id` String COMMENT 'The account above it',
    `since` DateTime64(6, 'UTC') COMMENT 'Event time of the call: the parent counts from it on'
)
{{.Definer}}
COMMENT 'Parents of accounts, as group calls stated them'
AS
SELECT DISTINCT app_id, subject AS account_id, object AS parent_account_id, at AS since
FROM {{.Table "identity_facts"}}
WHERE fact = 'parent'
