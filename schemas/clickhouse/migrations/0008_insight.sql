-- What views about usage go by: which usage counts as activity, who is left out,
-- which events are milestones. An apply inserts all rows of a version in one block,
-- under a token that names the version, so that of two applies at once one is taken
-- whole. The newest version of an app is the one in force.

CREATE TABLE IF NOT EXISTS {{.Table "insight_rules"}}{{.OnCluster}}
(
    `app_id` LowCardinality(String) COMMENT 'App that the definitions are of',
    `version` UInt32 COMMENT 'Counts up with each apply',
    `use` LowCardinality(String) COMMENT 'What the rule is for: version, activity, exclude, signup_page, signup, activation, value, subscription, paid, friction, seats or session_gap',
    `match` LowCardinality(String) COMMENT 'What is matched: feature, module, product, event, user, mail_domain, trait, account, account_trait or role; empty: nothing',
    `key` String COMMENT 'Trait, of rules that match traits',
    `value` String COMMENT 'What it is matched with; of the row with use version the text of the file, of session_gap seconds',
    `applied_by` String COMMENT 'Who applied the version',
    `applied_at` DateTime64(3, 'UTC') COMMENT 'When it was applied'
)
ENGINE = {{.SharedMergeTree}}
ORDER BY (app_id, version)
SETTINGS {{.Window}}
COMMENT 'Definitions that views about usage go by, by app and version';
