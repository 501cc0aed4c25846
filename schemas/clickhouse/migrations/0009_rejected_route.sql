-- What a rejected event needs to be sent again: the route that it came by, and what
-- stood around it in its request.

{{.Alter "rejected_events"}}
    ADD COLUMN IF NOT EXISTS `route` LowCardinality(String) COMMENT 'Method and path of the gateway''s route that it came by; empty for stage enricher and for what was rejected before this column was added',
    ADD COLUMN IF NOT EXISTS `envelope` String COMMENT 'JSON text of what stood around it in its request and is needed to send it again; empty: nothing is, or the app has privacy rules' CODEC(ZSTD(1));

{{if .Form.Cluster}}ALTER TABLE {{.Table "rejected_events"}}{{.OnCluster}}
    ADD COLUMN IF NOT EXISTS `route` LowCardinality(String) COMMENT 'Method and path of the gateway''s route that it came by; empty for stage enricher and for what was rejected before this column was added',
    ADD COLUMN IF NOT EXISTS `envelope` String COMMENT 'JSON text of what stood around it in its request and is needed to send it again; empty: nothing is, or the app has privacy rules';{{end}}
