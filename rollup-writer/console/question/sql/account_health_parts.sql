-- title: Components of an account's health
-- definition: Each component of the score: what was measured, the value at which it is full, its weight, its share of 1, and the points that it brought or took in 4 weeks. The score is 100 times the weighted mean of the shares.
SELECT health_id AS health, part, kind, sentence, weight, share, change_4w AS points_in_4_weeks
FROM account_health_parts
WHERE app_id = {app:String} AND account_id = {account:String}
ORDER BY health_id, part
LIMIT 200
