{{.Create}}
(
    `app_id` LowCardinality(String) COMMENT 'App: one product in one environment',
    `feature_id` String COMMENT 'Feature of the catalog',
    `people` UInt64 COMMENT 'People who used it',
    `breadth` Nullable(Float64) COMMENT 'Share of the active people who used it',
    `accounts` UInt64 COMMENT 'Accounts that used it',
    `account_breadth` Nullable(Float64) COMMENT 'Share of the active accounts that used it',
    `events` Int64 COMMENT 'Events of it',
    `events_per_person` Float64 COMMENT 'Depth: events / people',
    `days_per_person` Float64 COMMENT 'Frequency: mean number of days on which a person used it'
)
{{.Definer}}
COMMENT 'Adoption of each feature in a range: breadth, depth and frequency. Parameters: app, from, to, zone.'
AS
{{template "adoption_query" ((.Insight.With "level" "'feature'").With "id" "feature_id")}}
