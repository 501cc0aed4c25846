{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `corrected_at` DateTime64(3, 'UTC') COMMENT 'When the log ordered it',
    `reason` LowCardinality(String) COMMENT 'link (also of a shared device to another user), unlink, alias, account, role, catalog or erase: what changed',
    `control_id` String COMMENT 'Id of the control record that ordered it',
    `hour` DateTime('UTC') COMMENT 'UTC hour of the events that were moved',
    `event` LowCardinality(String) COMMENT 'Their name',
    `events` Int64 COMMENT 'How many',
    `quantity` Int64 COMMENT 'Sum of their quantities',
    `from_account_id` String COMMENT 'Account that they counted for before',
    `from_actor_id` String COMMENT 'User or visitor that they counted for before',
    `from_actor_kind` String COMMENT 'user, anonymous, account or erased',
    `from_role` String COMMENT 'Role before',
    `from_feature_id` String COMMENT 'Feature before',
    `to_account_id` String COMMENT 'Account after it',
    `to_actor_id` String COMMENT 'User or visitor after it',
    `to_actor_kind` String COMMENT 'user, anonymous, account or erased',
    `to_role` String COMMENT 'Role after it',
    `to_feature_id` String COMMENT 'Feature after it'
)
{{.Definer}}
COMMENT 'Corrections of what was counted: from whom to whom, why and when. What events say on arrival plus what was moved is what is counted now. Parameters: app, from, to: days of UTC.'
AS
SELECT toLowCardinality({app:String}) AS app_id, any(c.corrected_at) AS corrected_at,
    toLowCardinality(multiIf(new.3 = 'erased', 'erase', old.5 != new.5, 'catalog', old.2 = new.2 AND old.3 = new.3, if(old.1 != new.1, 'account', 'role'), old.3 = 'anonymous', 'link', new.3 = 'anonymous', 'unlink', old.6 != new.6, 'link', 'alias')) AS reason,
    any(c.control_id) AS control_id, hour, event, toInt64(abs(argMin(c.events, c.row))) AS events, toInt64(abs(argMin(c.quantity, c.row))) AS quantity,
    old.1 AS from_account_id, old.2 AS from_actor_id, old.3 AS from_actor_kind, old.4 AS from_role, old.5 AS from_feature_id,
    new.1 AS to_account_id, new.2 AS to_actor_id, new.3 AS to_actor_kind, new.4 AS to_role, new.5 AS to_feature_id
FROM
(
    SELECT source_topic_id, source_partition, source_offset, block, row, hour, toString(event) AS event, events, quantity, control_id, corrected_at,
        (account_id, actor_id, toString(actor_kind), toString(role), toString(feature_id), user_id) AS whose
    FROM {{.Table "corrections"}}
    WHERE app_id = {app:String} AND hour >= toDateTime({from:Date}, 'UTC') AND hour < toDateTime({to:Date}, 'UTC')
) AS c
GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, event
HAVING (argMin(c.whose, c.row) AS old) != (argMax(c.whose, c.row) AS new)
ORDER BY corrected_at, control_id, hour, event
