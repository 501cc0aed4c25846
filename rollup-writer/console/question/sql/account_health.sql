-- title: Health of an account
-- definition: The newest score of the account by each health definition, 0 to 100, with the scores 4 and 12 weeks before from history as now known, and the part that changed it most in 4 weeks.
SELECT health_id AS health, score, band, score_4w AS score_4_weeks_before, score_12w AS score_12_weeks_before, reason, owner, day AS as_of_day
FROM account_health
WHERE app_id = {app:String} AND account_id = {account:String}
ORDER BY health_id
LIMIT 20
