-- title: Versions of the catalog
-- definition: When each version of the catalog was applied, and how many features it added, changed or removed.
SELECT catalog_version, min(applied_at) AS applied, countIf(h.removed = 0) AS features, countIf(h.removed = 1) AS removed_features
FROM catalog_features_history AS h
WHERE app_id = {app:String}
GROUP BY catalog_version
ORDER BY catalog_version DESC
LIMIT 20
