-- title: Search
-- definition: Accounts, people and features whose id or name contains the text.
-- people: rows kind=user,visitor
SELECT kind, id, label
FROM
(
    SELECT 'feature' AS kind, feature_id AS id, feature_name AS label FROM catalog_features WHERE app_id = {app:String} AND positionCaseInsensitiveUTF8(concat(feature_id, ' ', feature_name), {q:String}) > 0 LIMIT 20
    UNION ALL
    SELECT DISTINCT 'account', account_id, account_id FROM account_product_daily WHERE app_id = {app:String} AND positionCaseInsensitiveUTF8(account_id, {q:String}) > 0 LIMIT 20
    UNION ALL
    SELECT DISTINCT if(actor_kind = 'user', 'user', 'visitor'), actor_id, actor_id FROM usage_hourly WHERE app_id = {app:String} AND actor_kind != 'account' AND actor_id != '' AND positionCaseInsensitiveUTF8(actor_id, {q:String}) > 0 LIMIT 20
)
ORDER BY kind, length(id), id
