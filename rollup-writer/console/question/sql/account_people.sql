-- title: People of an account
-- definition: Members of the account by what identify and group calls said, and everybody who used the product for it in the period, with role, events and last use.
-- people: columns actor_id
SELECT
    if(u.actor_id != '', u.actor_kind, 'user') AS actor_kind,
    if(u.actor_id != '', u.actor_id, m.user_id) AS actor_id,
    m.role AS role, m.since AS since, u.uses AS uses, u.features AS features, u.last_use AS last_use
FROM
(
    SELECT user_id, argMax(s.role, s.since) AS role, min(s.since) AS since
    FROM memberships AS s
    WHERE app_id = {app:String} AND account_id = {account:String}
    GROUP BY user_id
) AS m
FULL OUTER JOIN
(
    SELECT actor_kind, actor_id, sumIf(h.events, hour >= {from:DateTime('UTC')}) AS uses, uniqExactIf(feature_id, feature_id != '' AND hour >= {from:DateTime('UTC')}) AS features, max(hour) AS last_use
    FROM usage_hourly AS h
    WHERE app_id = {app:String} AND account_id = {account:String} AND actor_kind != 'account' AND actor_id != '' AND hour < {to:DateTime('UTC')}
    GROUP BY actor_kind, actor_id
) AS u ON u.actor_id = m.user_id AND u.actor_kind = 'user'
ORDER BY uses DESC, actor_id
LIMIT 500
