-- title: Names of features
-- definition: The name that the newest catalog gives each feature.
SELECT feature_id, feature_name
FROM catalog_features
WHERE app_id = {app:String} AND feature_name != ''
ORDER BY feature_id
LIMIT 10000
