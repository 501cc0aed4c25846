{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'Account; empty: none',
    `actor_id` String COMMENT 'User or visitor',
    `actor_kind` LowCardinality(String) COMMENT 'user, anonymous, account or erased'
)
{{.Definer}}
COMMENT 'Accounts and actors whose counts were changed by the corrections that a range of the log ordered: those that events were moved from, and those that they were moved to. Parameters: app, partition of enriched, first, next: offsets in it, next exclusive.'
AS
SELECT DISTINCT app_id, account_id, actor_id, actor_kind
FROM {{.Table "corrections"}}
WHERE app_id = {app:String} AND source_partition = {partition:Int32} AND source_offset >= {first:Int64} AND source_offset < {next:Int64}
ORDER BY account_id, actor_kind, actor_id
