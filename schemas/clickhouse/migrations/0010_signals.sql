-- What `rollup-writer alerts` said, from the topics uptake.alerts.v1 and
-- uptake.alert-state.v1: the writers copy both. Rows of one key are replaced when
-- parts merge, so that any number of copies is one; people read the views.

{{.CreateTable "signal_log"}}
(
    `app_id` LowCardinality(String),
    `alert_id` String COMMENT 'The same from firing, or entering, to the end',
    `message_id` String COMMENT 'Of the change of state',
    `signal_use` LowCardinality(String) COMMENT 'alert, segment or health',
    `signal` LowCardinality(String) COMMENT 'Id of the definition',
    `band` LowCardinality(String) COMMENT 'Of a health score',
    `version` UInt32 COMMENT 'Of the definition',
    `state` LowCardinality(String) COMMENT 'firing, resolved, retracted, acknowledged, entered or left',
    `level` LowCardinality(String) COMMENT 'account, user or app',
    `subject` String COMMENT 'Account, user or app',
    `severity` LowCardinality(String),
    `owner` String COMMENT 'Trait owner of the account, else of the definition',
    `title` String COMMENT 'Description of the definition',
    `reason` String COMMENT 'In words, with the numbers',
    `playbook` String,
    `closes` String COMMENT 'What closes the loop',
    `value` Float64 COMMENT 'Measured value',
    `limit_value` Float64 COMMENT 'Limit, absolute',
    `mean` Float64 COMMENT 'Mean of the windows before, of a relative limit',
    `at` DateTime64(3, 'UTC') COMMENT 'End of the day or hour that value is of',
    `valid_from` DateTime64(3, 'UTC') COMMENT 'When it fired, in the data',
    `valid_to` Nullable(DateTime64(3, 'UTC')) COMMENT 'When it ended, in the data',
    `silent` UInt8 COMMENT '1: not delivered',
    `acted_by` String COMMENT 'Of an acknowledgement',
    `feedback` LowCardinality(String) COMMENT 'useful or false_positive',
    `note` String,
    `written_at` DateTime64(3, 'UTC'),
    `log_topic_id` LowCardinality(String),
    `log_offset` Int64
)
ENGINE = {{.ReplacingMergeTree "written_at"}}
ORDER BY (app_id, signal_use, alert_id, message_id)
COMMENT 'Changes of state of alerts, segments and health bands';

{{.CreateDistributed "signal_log"}};

{{.CreateTable "health_scores"}}
(
    `app_id` LowCardinality(String),
    `health_id` LowCardinality(String) COMMENT 'Id of the definition',
    `account_id` String,
    `version` UInt32 COMMENT 'Of the definition',
    `owner` String,
    `day` Date COMMENT 'Last UTC day that counts',
    `score` Float64,
    `band` LowCardinality(String),
    `score_4w` Float64,
    `score_12w` Float64,
    `reason` String,
    `consequence` Nullable(Float64),
    `priority` Float64,
    `parts` Array(Tuple(id String, kind String, value Float64, yardstick Float64, weight Float64, share Float64, change Float64, sentence String)),
    `written_at` DateTime64(3, 'UTC'),
    `log_topic_id` LowCardinality(String),
    `log_offset` Int64,
    `removed` UInt8 COMMENT '1: the account has no score any more'
)
ENGINE = {{.ReplacingMergeTree "written_at, removed"}}
ORDER BY (app_id, health_id, account_id)
COMMENT 'Newest score of each account by each health definition';

{{.CreateDistributed "health_scores"}};
