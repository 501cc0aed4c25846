-- Links of a shared device begin within hours. A correction of such an hour names
-- the part of it that it moves, and what lies in that part is read from events, by
-- anonymous id.

{{.Alter "corrections"}}
    ADD COLUMN IF NOT EXISTS `part_from` DateTime64(6, 'UTC') COMMENT 'Event time from which on events of the hour are moved' CODEC(Delta, ZSTD(1)) AFTER `hour`,
    ADD COLUMN IF NOT EXISTS `part_to` DateTime64(6, 'UTC') COMMENT 'Event time before which events of the hour are moved; 1970: the whole hour is' CODEC(Delta, ZSTD(1)) AFTER `part_from`,
    ADD INDEX IF NOT EXISTS `hours` hour TYPE minmax GRANULARITY 1,
    ADD INDEX IF NOT EXISTS `visitor` anonymous_id TYPE bloom_filter(0.01) GRANULARITY 1;

{{.Alter "correction_plans"}}
    ADD COLUMN IF NOT EXISTS `part_from` DateTime64(6, 'UTC') AFTER `hour`,
    ADD COLUMN IF NOT EXISTS `part_to` DateTime64(6, 'UTC') AFTER `part_from`;

{{.Alter "events"}}
    ADD INDEX IF NOT EXISTS `visitor` anonymous_id TYPE bloom_filter(0.01) GRANULARITY 4;

{{if .Form.Cluster}}ALTER TABLE {{.Table "corrections"}}{{.OnCluster}}
    ADD COLUMN IF NOT EXISTS `part_from` DateTime64(6, 'UTC') AFTER `hour`,
    ADD COLUMN IF NOT EXISTS `part_to` DateTime64(6, 'UTC') AFTER `part_from`;

ALTER TABLE {{.Table "correction_plans"}}{{.OnCluster}}
    ADD COLUMN IF NOT EXISTS `part_from` DateTime64(6, 'UTC') AFTER `hour`,
    ADD COLUMN IF NOT EXISTS `part_to` DateTime64(6, 'UTC') AFTER `part_from`;{{end}}
