{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `actor_kind` String COMMENT 'user, or anonymous for a visitor who is not known to be a user',
    `actor_id` String COMMENT 'User id or anonymous id',
    `feature_id` String COMMENT 'Feature of the catalog',
    `first_hour` DateTime('UTC') COMMENT 'Hour of the first use',
    `last_hour` DateTime('UTC') COMMENT 'Hour of the last use before the end of the range',
    `days_used` UInt64 COMMENT 'Days of the zone on which it was used',
    `events` Int64 COMMENT 'Events of it',
    `hours_to_first_use` Int64 COMMENT 'Hours from the first usage of anything to the first use',
    `abandoned` UInt8 COMMENT '1: used on one day alone, and not in the 28 days after it'
)
{{.Definer}}
COMMENT 'People who used a feature for the first time ever in a range, and what became of it up to the end of the range. Parameters: app, from, to, zone.'
AS
SELECT toLowCardinality({app:String}) AS app_id, actor_kind, actor_id, feature_id, first_hour, last_hour, days_used, events, hours_to_first_use, abandoned
FROM ({{template "first_use" .Insight}})
