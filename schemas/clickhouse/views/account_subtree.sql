{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `account_id` String COMMENT 'The account above',
    `member_id` String COMMENT 'The account itself or one below it',
    `depth` UInt32 COMMENT 'How far member_id is below account_id; 0: it is the account itself'
)
{{.Definer}}
COMMENT 'Each account with all accounts below it today, itself included'
AS
SELECT k.app_id AS app_id, ancestor AS account_id, k.account_id AS member_id, toUInt32(position - 1) AS depth
FROM
(
    SELECT DISTINCT app_id, arrayJoin(multiIf(fact = 'account', [subject], fact = 'membership', [object], [subject, object])) AS account_id
    FROM {{.Table "identity_facts"}}
    WHERE fact IN ('account', 'membership', 'parent')
) AS k
LEFT JOIN {{.View "account_paths"}} AS p ON p.app_id = k.app_id AND p.account_id = k.account_id
ARRAY JOIN if(empty(p.ancestors), [k.account_id], p.ancestors) AS ancestor, arrayEnumerate(if(empty(p.ancestors), [k.account_id], p.ancestors)) AS position
