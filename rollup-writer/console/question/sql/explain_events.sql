-- title: Events behind a number
-- definition: The newest events that count for the account, person and feature today, in the period, with the ids that each call named.
-- people: hidden
SELECT event_time, event, message_id, quantity, actor_id, account_id, feature_id, user_id AS named_user, anonymous_id AS named_visitor, protocol
FROM events_now(app = {app:String}, from = toDate({from:DateTime('UTC')}), to = toDate({to:DateTime('UTC')}) + 1, zone = 'UTC')
WHERE app_id = {app:String} AND event_time >= {from:DateTime('UTC')} AND event_time < {to:DateTime('UTC')}
    AND ({account:String} = '' OR account_id = {account:String}) AND ({person:String} = '' OR actor_id = {person:String}) AND ({feature:String} = '' OR feature_id = {feature:String})
ORDER BY event_time DESC, message_id
LIMIT 200
