-- What the enricher read of the client of each event. Rows from before have no country,
-- browser, system and class of device; their referrer and campaign are read from the
-- context where they are looked at, until a merge or an erasure stores them.

{{.Alter "events"}}
    ADD COLUMN IF NOT EXISTS `country` LowCardinality(String) COMMENT 'Country of the client, two letters of ISO 3166-1: as its sender states, else by its address; empty: not known' AFTER `user_agent`,
    ADD COLUMN IF NOT EXISTS `browser` LowCardinality(String) COMMENT 'Browser, as its sender states, else by the user agent; empty: none or not known' AFTER `country`,
    ADD COLUMN IF NOT EXISTS `os` LowCardinality(String) COMMENT 'Operating system of the client, as its sender states, else by the user agent; empty: not known' AFTER `browser`,
    ADD COLUMN IF NOT EXISTS `device_class` LowCardinality(String) COMMENT 'desktop, mobile, tablet, tv, console, wearable or bot; empty: not known' AFTER `os`,
    ADD COLUMN IF NOT EXISTS `referrer` LowCardinality(String) DEFAULT if(domainWithoutWWW(JSONExtractString(context, 'page', 'referrer')) = domainWithoutWWW(JSONExtractString(context, 'page', 'url')), '', lower(domain(JSONExtractString(context, 'page', 'referrer')))) COMMENT 'Host of the page that led to this one; empty: none, or the same host' AFTER `device_class`,
    ADD COLUMN IF NOT EXISTS `utm_source` LowCardinality(String) DEFAULT JSONExtractString(context, 'campaign', 'source') COMMENT 'Source of the campaign; empty: none' AFTER `referrer`,
    ADD COLUMN IF NOT EXISTS `utm_medium` LowCardinality(String) DEFAULT JSONExtractString(context, 'campaign', 'medium') COMMENT 'Medium of the campaign; empty: none' AFTER `utm_source`,
    ADD COLUMN IF NOT EXISTS `utm_campaign` LowCardinality(String) DEFAULT JSONExtractString(context, 'campaign', 'name') COMMENT 'Name of the campaign; empty: none' AFTER `utm_medium`;

{{if .Form.Cluster}}ALTER TABLE {{.Table "events"}}{{.OnCluster}}
    ADD COLUMN IF NOT EXISTS `country` LowCardinality(String) COMMENT 'Country of the client, two letters of ISO 3166-1: as its sender states, else by its address; empty: not known' AFTER `user_agent`,
    ADD COLUMN IF NOT EXISTS `browser` LowCardinality(String) COMMENT 'Browser, as its sender states, else by the user agent; empty: none or not known' AFTER `country`,
    ADD COLUMN IF NOT EXISTS `os` LowCardinality(String) COMMENT 'Operating system of the client, as its sender states, else by the user agent; empty: not known' AFTER `browser`,
    ADD COLUMN IF NOT EXISTS `device_class` LowCardinality(String) COMMENT 'desktop, mobile, tablet, tv, console, wearable or bot; empty: not known' AFTER `os`,
    ADD COLUMN IF NOT EXISTS `referrer` LowCardinality(String) COMMENT 'Host of the page that led to this one; empty: none, or the same host' AFTER `device_class`,
    ADD COLUMN IF NOT EXISTS `utm_source` LowCardinality(String) COMMENT 'Source of the campaign; empty: none' AFTER `referrer`,
    ADD COLUMN IF NOT EXISTS `utm_medium` LowCardinality(String) COMMENT 'Medium of the campaign; empty: none' AFTER `utm_source`,
    ADD COLUMN IF NOT EXISTS `utm_campaign` LowCardinality(String) COMMENT 'Name of the campaign; empty: none' AFTER `utm_medium`;{{end}}
