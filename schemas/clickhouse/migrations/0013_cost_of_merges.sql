-- What rows cost in inserts and merges, see docs/performance.md. Lengths of strings
-- stand beside their bytes, not in a stream of their own. Parts of events are merged
-- when there are more of one size, so that a row is merged less often. Both hold for
-- what is written from now on, and change nothing about which block is a repeat.

{{.Alter "events"}}
    MODIFY SETTING string_serialization_version = 'single_stream', merge_selector_base = 20;

{{.Alter "usage_hourly"}}
    MODIFY SETTING string_serialization_version = 'single_stream';

{{.Alter "account_feature_daily"}}
    MODIFY SETTING string_serialization_version = 'single_stream';

{{.Alter "account_module_daily"}}
    MODIFY SETTING string_serialization_version = 'single_stream';

{{.Alter "account_product_daily"}}
    MODIFY SETTING string_serialization_version = 'single_stream';

{{.Alter "user_feature_daily"}}
    MODIFY SETTING string_serialization_version = 'single_stream';

{{.Alter "identity_facts"}}
    MODIFY SETTING string_serialization_version = 'single_stream';
