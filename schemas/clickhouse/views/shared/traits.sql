{{define "stated"}}max(if(f.last.1 > f.stated.1, (f.last.1, toDateTime64(0, 6, 'UTC'), toInt64(-1), f.last.2), f.stated)){{end}}

{{define "traits"}}-- The calls that state a trait, in order of event time, those of one event time as
-- they were received and lie in the log, folded. Of a plain trait the
-- last call is enough: whatever was stated of it before does not count. A call that
-- deletes everything ends what was stated up to then.
WITH
    x -> if(startsWith(x, '['), JSONExtractArrayRaw(x), if(x = '', [], [x])) AS list,
    x -> concat('[', arrayStringConcat(x, ','), ']') AS text
SELECT
    app_id, {{.Of}}_id, trait,
    arrayFold(
        (had, step) -> multiIf(
            step.3 = '$set', step.4,
            step.3 IN ('$set_once', '$setOnce'), if(had = '', step.4, had),
            step.3 = '$add', toString(toFloat64OrZero(had) + toFloat64OrZero(step.4)),
            step.3 = '$append', text(arrayConcat(list(had), list(step.4))),
            step.3 = '$prepend', text(arrayConcat(list(step.4), list(had))),
            step.3 IN ('$union', '$postInsert'), text(arrayDistinct(arrayConcat(list(had), list(step.4)))),
            step.3 = '$preInsert', text(arrayDistinct(arrayConcat(arrayFilter(v -> NOT has(list(had), v), list(step.4)), list(had)))),
            step.3 = '$remove' AND had != '', text(arrayFilter(v -> NOT has(list(step.4), v), list(had))),
            ''),
        arrayFilter(step -> step.1 > deleted OR trait = '', steps), '') AS value,
    said_at
FROM
(
    SELECT app_id, {{.Of}}_id, trait, arraySort(groupArray((place, call_id, operator, value))) AS steps, max(place.1) AS said_at, any(deleted_place) AS deleted
    FROM
    (
        SELECT
            app_id, subject AS {{.Of}}_id,
            if(position(object, '\0') = 0, [object, '$set', ''], splitByChar('\0', object)) AS parts,
            parts[1] AS trait, parts[2] AS operator, parts[3] AS call_id, (said.1, said.2, said.3) AS place, said.4 AS value,
            maxIf(place, trait = '' AND operator != '$set') OVER (PARTITION BY app_id, subject) AS deleted_place
        FROM
        (
            SELECT app_id, subject, object, {{template "stated"}} AS said
            FROM {{.D.Table "identity_facts"}} AS f
            WHERE fact = '{{.Of}}'
            GROUP BY app_id, subject, object
        )
        WHERE trait NOT IN ('$set_once', '$setOnce', '$add', '$append', '$prepend', '$union', '$postInsert', '$preInsert', '$remove', '$unset', '$delete', '$clearAll')
    )
    GROUP BY app_id, {{.Of}}_id, trait
)
WHERE trait = '' OR value != ''{{end}}
