-- title: Traits of a person
-- definition: What identify calls last said of the person.
-- people: hidden
SELECT trait, if(startsWith(value, '"'), JSONExtractString(value), value) AS value, said_at
FROM user_traits
WHERE app_id = {app:String} AND user_id = {person:String} AND trait != ''
ORDER BY trait
