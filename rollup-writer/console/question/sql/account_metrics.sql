-- title: Reported metrics of an account
-- definition: The latest value that was reported of each metric of the account.
SELECT metric_id AS metric, value, unit, semantics, dimensions, at AS reported_for
FROM account_metrics
WHERE app_id = {app:String} AND account_id = {account:String}
ORDER BY metric_id, dimensions
LIMIT 100
