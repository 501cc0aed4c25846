-- title: Corrections behind a number
-- definition: Every correction that brought events to the account, person and feature or took some away, newest first: what changed, from whom to whom, when the log ordered it.
-- people: hidden
SELECT corrected_at, reason, hour, event, events, if(to_here, 'here', 'away') AS direction, from_actor_id, from_account_id, from_feature_id, to_actor_id, to_account_id, to_feature_id
FROM
(
    SELECT *,
        ({account:String} = '' OR to_account_id = {account:String}) AND ({person:String} = '' OR to_actor_id = {person:String}) AND ({feature:String} = '' OR to_feature_id = {feature:String}) AS to_here,
        ({account:String} = '' OR from_account_id = {account:String}) AND ({person:String} = '' OR from_actor_id = {person:String}) AND ({feature:String} = '' OR from_feature_id = {feature:String}) AS from_here
    FROM moves(app = {app:String}, from = toDate({from:DateTime('UTC')}), to = toDate({to:DateTime('UTC')}) + 1)
    WHERE app_id = {app:String} AND hour >= {from:DateTime('UTC')} AND hour < {to:DateTime('UTC')}
)
WHERE to_here != from_here
ORDER BY corrected_at DESC, hour, event
LIMIT 200
