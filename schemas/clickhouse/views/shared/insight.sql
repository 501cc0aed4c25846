{{define "definitions"}}SELECT use, match, key, value
FROM {{.Table "insight_rules"}}
WHERE app_id = {app:String} AND version = (SELECT max(version) FROM {{.Table "insight_rules"}} WHERE app_id = {app:String}){{end}}

{{define "settings"}}-- What is defined for the app, as constants: an array of (use, match, key, value), and
-- who is left out. A trait is taken as last stated.
    (SELECT groupArray((toString(use), toString(match), key, value)) FROM ({{template "definitions" .}})) AS defined,
    (
        SELECT (groupUniqArrayIf(id, kind = 'user'), groupUniqArrayIf(id, kind = 'account'))
        FROM
        (
            SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, {{template "stated"}}.4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
            FROM {{.Table "identity_facts"}} AS f
            WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != '' AND arrayExists(d -> d.2 IN ('mail_domain', 'trait', 'account_trait'), defined)
            GROUP BY kind, id, trait
            HAVING arrayExists(d -> d.1 = 'exclude' AND multiIf(d.2 = 'mail_domain', kind = 'user' AND trait = 'email' AND endsWith(lower(text), concat('@', lower(d.4))),
                (d.2 = 'trait' AND kind = 'user') OR (d.2 = 'account_trait' AND kind = 'account'), trait = d.3 AND text = d.4, 0), defined)
        )
    ) AS by_trait,
    arrayConcat(by_trait.1, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user', defined))) AS excluded_users,
    arrayConcat(by_trait.2, arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'account', defined))) AS excluded_accounts,
    arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'role', defined)) AS excluded_roles,
    arraySort(arrayMap(d -> d.4, arrayFilter(d -> d.1 = 'exclude' AND d.2 = 'user_agent', defined))) AS excluded_agents{{end}}

{{define "listed_ids"}}-- Ids that events with a listed user agent named: a user, or else an anonymous id; and
-- for whom they counted on arrival.
SELECT anonymous_id, user_id, actor_id, excluded_agents[multiSearchFirstIndexCaseInsensitive(user_agent, excluded_agents)] AS agent
FROM {{.Table "user_agents"}}
WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND multiSearchAnyCaseInsensitive(user_agent, excluded_agents){{end}}

{{define "bots"}}-- For whom usage of these ids counts today: it is in the rollup, where moves took it
-- from those for whom it counted on arrival. Both are found by the primary key.
SELECT toString(u.actor_kind) AS kind, u.actor_id AS id{{if eq (.P "agent") "1"}}, l.agent AS agent{{end}}
FROM
(
    SELECT actor_kind, actor_id, anonymous_id, if(anonymous_id = '', user_id, '') AS named
    FROM {{.Table "usage_hourly"}}
    WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND actor_kind IN ('user', 'anonymous') AND actor_id GLOBAL IN
    (
        SELECT actor_id FROM ({{template "listed_ids" .}})
        UNION ALL
        SELECT actor_id FROM {{.Table "corrections"}}
        WHERE app_id = {app:String} AND notEmpty(excluded_agents) AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM ({{template "listed_ids" .}}))
    )
    AND (anonymous_id, if(anonymous_id = '', user_id, '')) GLOBAL IN (SELECT anonymous_id, user_id FROM ({{template "listed_ids" .}}))
    GROUP BY actor_kind, actor_id, anonymous_id, named
    HAVING sum(events) > 0
) AS u{{if eq (.P "agent") "1"}}
INNER JOIN ({{template "listed_ids" .}}) AS l ON l.anonymous_id = u.anonymous_id AND l.user_id = u.named{{end}}{{end}}

{{define "exclusions_query"}}WITH
    (SELECT arraySort(groupArrayIf(value, use = 'exclude' AND match = 'user_agent')) FROM ({{template "definitions" .}})) AS excluded_agents
SELECT kind, id, concat('user_agent ', agent) AS why
FROM ({{template "bots" (.With "agent" "1")}})
UNION ALL
SELECT match AS kind, value AS id, concat(match, ' ', value) AS why
FROM (SELECT toString(use) AS use, toString(match) AS match, value FROM ({{template "definitions" .}}))
WHERE use = 'exclude' AND match IN ('user', 'account', 'role')
UNION ALL
SELECT t.kind, t.id, if(i.match = 'mail_domain', concat('mail_domain ', i.value), concat(i.match, ' ', i.key, '=', i.value))
FROM
(
    SELECT toString(fact) AS kind, subject AS id, substringIndex(object, '\0', 1) AS trait, {{template "stated"}}.4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS text
    FROM {{.Table "identity_facts"}} AS f
    WHERE app_id = {app:String} AND fact IN ('user', 'account') AND object != ''
    GROUP BY kind, id, trait
) AS t
INNER JOIN
(
    SELECT toString(match) AS match, key, value, if(match = 'account_trait', 'account', 'user') AS kind, if(match = 'mail_domain', 'email', key) AS trait
    FROM ({{template "definitions" .}})
    WHERE use = 'exclude' AND match IN ('mail_domain', 'trait', 'account_trait')
) AS i ON i.kind = t.kind AND i.trait = t.trait
WHERE if(i.match = 'mail_domain', endsWith(lower(t.text), concat('@', lower(i.value))), t.text = i.value){{end}}

{{define "customers"}}-- Only people, and nobody whom a definition excludes.
actor_kind NOT IN ('account', 'erased') AND NOT (actor_kind = 'user' AND actor_id IN excluded_users) AND account_id NOT IN excluded_accounts AND role NOT IN excluded_roles
    AND (empty(excluded_agents) OR (toString(actor_kind), actor_id) NOT IN ({{template "bots" .}})){{end}}

{{define "moves"}}-- The moves of a range: which events count for whom since which offset of the log.
-- Rows 2k-1 and 2k of a block's corrections are one move, old and new attribution, of
-- a whole hour or of a part of it.
SELECT sipHash64(source_topic_id, source_partition, event, toUInt32(hour), anonymous_id, named) AS k, arraySort(x -> x.1, groupArray((source_offset, old, new, toUnixTimestamp64Micro(part_from), toUnixTimestamp64Micro(part_to)))) AS steps
FROM
(
    SELECT source_topic_id, source_partition, source_offset, hour, part_from, part_to, event, anonymous_id, if(anonymous_id != '', '', argMin(user_id, row)) AS named,
        argMin(attribution, row) AS old, argMax(attribution, row) AS new
    FROM
    (
        SELECT source_topic_id, source_partition, source_offset, block, row, hour, part_from, part_to, event, anonymous_id, user_id,
            CAST((user_id, account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS attribution
        FROM {{.Table "corrections"}}
        WHERE app_id = {app:String} AND hour >= toDateTime({{.P "from"}}, 'UTC') - 86400 AND hour < toDateTime({{.P "to"}}, 'UTC') + 86400
    )
    GROUP BY source_topic_id, source_partition, source_offset, block, intDiv(row + 1, 2), hour, part_from, part_to, event, anonymous_id
)
GROUP BY k{{end}}

{{define "events_now_query"}}-- An event takes, in the order of the log, each move behind it that names the
-- attribution that it has by then and, of a part of an hour, its instant.
SELECT {{.P "columns"}}, a.4 AS actor_id, a.5 AS actor_kind, a.2 AS account_id, a.3 AS account_source, a.6 AS role, a.7 AS feature_id, a.8 AS module_id, a.9 AS product_id
FROM
(
    SELECT {{.P "columns"}}, if(empty(m.steps), stamped,
        arrayFold((s, x) -> if(x.1 > greatest(s.1, source_offset) AND x.2 = s.2 AND (x.5 = 0 OR (x.4 <= toUnixTimestamp64Micro(event_time) AND toUnixTimestamp64Micro(event_time) < x.5)), (x.1, x.3), s), m.steps, (toInt64(-1), stamped)).2) AS a
    FROM
    (
        SELECT {{.P "columns"}}, sipHash64(source_topic_id, source_partition, event, toUInt32(toStartOfHour(toDateTime(event_time, 'UTC'))), if(user_id = '', anonymous_id, ''), user_id) AS move_key,
            CAST((if(user_id != '', user_id, linked_user_id), account_id, account_source, actor_id, actor_kind, role, feature_id, module_id, product_id), 'Tuple(String, String, String, String, String, String, String, String, String)') AS stamped
        FROM {{.Table "events"}}
        WHERE app_id = {app:String} AND kind IN ('track', 'page', 'screen', 'api_call') AND {{.P "where"}}
            AND toDate(event_time) >= {{.P "from"}} - 1 AND toDate(event_time) <= {{.P "to"}} + 1
            AND toDate(event_time, {{.P "zone"}}) >= {{.P "from"}} AND toDate(event_time, {{.P "zone"}}) < {{.P "to"}}
    ) AS e
    LEFT ANY JOIN ({{template "moves" .}}) AS m ON m.k = e.move_key
){{end}}

{{define "usage_cells"}}-- Counted usage by day of the zone: from the hourly rollup, and from events where
-- an hour of UTC lies in two days of the zone. What a correction moved away sums to
-- zero until a merge removes it.
SELECT account_id, actor_id, toString(actor_kind) AS actor_kind, toString(role) AS role,
    toString(feature_id) AS feature_id, toString(module_id) AS module_id, toString(product_id) AS product_id,
    hour, toDate(hour, {{.P "zone"}}) AS day, sum(u.events) AS events, sum(u.quantity) AS quantity
FROM {{.Table "usage_hourly"}} AS u
WHERE app_id = {app:String}
    AND hour >= toDateTime({{.P "from"}}, 'UTC') - 86400 AND hour < toDateTime({{.P "to"}}, 'UTC') + 86400
    AND toDate(hour, {{.P "zone"}}) >= {{.P "from"}} AND toDate(hour, {{.P "zone"}}) < {{.P "to"}} AND {{.WholeHour "hour"}}
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day
HAVING events > 0
UNION ALL
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id,
    hour, toDate(event_time, {{.P "zone"}}) AS day, toInt64(count()) AS events, sum(e.quantity) AS quantity
FROM
(
    SELECT *, toStartOfHour(toDateTime(event_time, 'UTC')) AS hour
    FROM ({{template "events_now_query" ((.With "columns" "event_time, quantity, source_offset").With "where" (print .AnyPartHour " AND NOT " (.WholeHour "toStartOfHour(toDateTime(event_time, 'UTC'))")))}})
) AS e
GROUP BY account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day{{end}}

{{define "counted_usage"}}-- Usage of customers; active says whether it counts as activity: as defined, or
-- where nothing is defined that of any feature.
WITH
    {{template "settings" .}},
    arrayFilter(d -> d.1 = 'activity', defined) AS activity
SELECT account_id, actor_id, actor_kind, role, feature_id, module_id, product_id, hour, day, events, quantity,
    if(empty(activity), feature_id != '', (feature_id != '' AND has(arrayMap(d -> (d.2, d.4), activity), ('feature', feature_id)))
        OR has(arrayMap(d -> (d.2, d.4), activity), ('module', module_id)) OR has(arrayMap(d -> (d.2, d.4), activity), ('product', product_id))) AS active
FROM ({{template "usage_cells" .}})
WHERE {{template "customers" .}}{{end}}

{{define "counted_events"}}WITH
    {{template "settings" .}}
SELECT *
FROM ({{template "events_now_query" .}})
WHERE {{template "customers" .}}{{end}}

{{define "trait_join"}}{{if ne (.P "by") "''"}}LEFT ANY JOIN
(
    SELECT subject AS id, {{template "stated"}}.4 AS said, if(startsWith(said, '"'), JSONExtractString(said), said) AS value
    FROM {{.Table "identity_facts"}} AS f
    WHERE app_id = {app:String} AND fact = substringIndex({{.P "by"}}, '.', 1) AND object != '' AND substringIndex(object, '\0', 1) = substring({{.P "by"}}, position({{.P "by"}}, '.') + 1)
    GROUP BY id
) AS trait ON trait.id = multiIf(startsWith({{.P "by"}}, 'account.'), u.account_id, u.actor_kind = 'user', u.actor_id, ''){{end}}{{end}}

{{define "active_users_query"}}-- Usage that counts as activity, counted once for each period and value.
SELECT {{.PeriodOf "u.day"}} AS period_start, {{.Dimension "u"}} AS value,
    uniqExact(u.actor_kind, u.actor_id) AS active_people, uniqExactIf(u.actor_id, u.actor_kind = 'user') AS active_users,
    uniqExactIf(u.account_id, u.account_id != '') AS active_accounts, toInt64(sum(u.events)) AS events
FROM ({{template "counted_usage" .}}) AS u
{{template "trait_join" .}}
WHERE u.active AND {{.CheckPeriod}} AND {{.CheckDimension}}
GROUP BY period_start, value
ORDER BY period_start, value{{end}}

{{define "lifecycle_query"}}-- Of each one the periods in which it was active, in order; the first is new, one
-- after a gap is resurrected, and the period after each that has none next to it
-- is dormant.
SELECT toLowCardinality({app:String}) AS app_id, state.1 AS period_start, countIf(state.2 = 'new') AS new, countIf(state.2 = 'returning') AS returning,
    countIf(state.2 = 'resurrected') AS resurrected, countIf(state.2 = 'dormant') AS dormant, (new + resurrected) / nullIf(dormant, 0) AS quick_ratio
FROM
(
    SELECT arrayJoin(arrayConcat(
        arrayMap((p, before, i) -> (p, multiIf(i = 1, 'new', {{.AddPeriods "before" "1"}} = p, 'returning', 'resurrected')),
            periods, arrayPushFront(arrayPopBack(periods), toDate('1970-01-01')), arrayEnumerate(periods)),
        arrayMap((p, after) -> ({{.AddPeriods "p" "1"}}, if(after = {{.AddPeriods "p" "1"}}, '', 'dormant')),
            periods, arrayPushBack(arrayPopFront(periods), toDate('2149-06-06'))))) AS state
    FROM
    (
        SELECT {{.Unit}} AS who, arraySort(groupUniqArray({{.PeriodOf "day"}})) AS periods
        FROM ({{template "counted_usage" (.With "from" "toDate('1970-01-03')")}})
        WHERE active AND {{.CheckPeriod}} AND {{.CheckUnit}}
        GROUP BY who
    )
)
WHERE period_start >= {{.PeriodOf "{from:Date}"}} AND period_start < {to:Date} AND state.2 != ''
GROUP BY period_start
ORDER BY period_start{{end}}

{{define "adoption_query"}}SELECT toLowCardinality({app:String}) AS app_id, u.id AS {{.P "id"}}, uniqExact(u.actor_kind, u.actor_id) AS people, uniqExactIf((u.actor_kind, u.actor_id), u.active_person) / nullIf(any(u.all_people), 0) AS breadth,
    uniqExactIf(u.account_id, u.account_id != '') AS accounts, uniqExactIf(u.account_id, u.account_id != '' AND u.active_account) / nullIf(any(u.all_accounts), 0) AS account_breadth,
    toInt64(sum(u.events)) AS events, events / people AS events_per_person, uniqExact(u.actor_kind, u.actor_id, u.day) / people AS days_per_person
FROM
(
    SELECT id, actor_kind, actor_id, account_id, day, events, max(active) OVER (PARTITION BY actor_kind, actor_id) AS active_person, max(active) OVER (PARTITION BY account_id) AS active_account,
        uniqExactIf((actor_kind, actor_id), active) OVER () AS all_people, uniqExactIf(account_id, active AND account_id != '') OVER () AS all_accounts
    FROM
    (
        SELECT {{.Level}} AS id, actor_kind, actor_id, account_id, day, sum(c.events) AS events, max(c.active) AS active
        FROM ({{template "counted_usage" .}}) AS c
        WHERE {{.CheckLevel}}
        GROUP BY id, actor_kind, actor_id, account_id, day
    )
) AS u
WHERE u.id != ''
GROUP BY u.id
ORDER BY people DESC, u.id{{end}}

{{define "first_use"}}-- Each feature of each person: the first and the last use, of all time up to the end
-- of the range.
SELECT actor_kind, actor_id, feature_id, min(u.hour) AS first_hour, max(u.hour) AS last_hour, uniqExact(u.day) AS days_used, toInt64(sum(u.events)) AS events,
    toInt64(dateDiff('hour', any(u.first_seen), first_hour)) AS hours_to_first_use, toUInt8(days_used = 1 AND max(u.day) + 28 < {to:Date}) AS abandoned
FROM
(
    SELECT actor_kind, actor_id, feature_id, hour, day, events, min(hour) OVER (PARTITION BY actor_kind, actor_id) AS first_seen
    FROM ({{template "counted_usage" (.With "from" "toDate('1970-01-03')")}})
) AS u
WHERE feature_id != ''
GROUP BY actor_kind, actor_id, feature_id
HAVING min(u.day) >= {from:Date}{{end}}

{{define "retention_query"}}SELECT toLowCardinality({app:String}) AS app_id, cohort, toUInt32(k) AS age, any(size) AS cohort_size, countIf(has(ages, k)) AS retained_on, countIf(oldest >= k) AS retained_on_or_after,
    retained_on / cohort_size AS rate_on, retained_on_or_after / cohort_size AS rate_on_or_after, toUInt8({{.AddPeriods "cohort" "(k + 1)"}} <= {to:Date}) AS complete
FROM
(
    SELECT cohort, ages, arrayMax(ages) AS oldest, count() OVER (PARTITION BY cohort) AS size
    FROM
    (
        SELECT who, minIf(p, starts) AS cohort, arrayMap(q -> {{.PeriodsBetween "cohort" "q"}}, groupUniqArrayIf(p, returns)) AS distances, arrayPushBack(arrayFilter(n -> n >= 0, distances), -1) AS ages
        FROM
        (
            SELECT {{.Unit}} AS who, {{.PeriodOf "day"}} AS p,
                if(empty({{.P "start"}}), active, has({{.P "start"}}, feature_id)) AS starts,
                if(empty({{.P "return"}}), active, has({{.P "return"}}, feature_id)) AS returns
            FROM ({{template "counted_usage" (.With "from" "toDate('1970-01-03')")}})
            WHERE {{.CheckPeriod}} AND {{.CheckUnit}}
        )
        GROUP BY who
        HAVING countIf(starts) > 0
    )
    WHERE cohort >= {{.PeriodOf "{from:Date}"}}
)
ARRAY JOIN range(toUInt32({{.PeriodsBetween "cohort" (.PeriodOf "({to:Date} - 1)")}} + 1)) AS k
GROUP BY cohort, k
ORDER BY cohort, k{{end}}

{{define "funnel_people_query"}}-- How far each one came (windowFunnel, exact for steps at the same instant), and
-- when: the first time that the furthest step was reached, each step before it at its
-- last occurrence. Steps of the same instant are in the order of the funnel.
SELECT who.1 AS unit_kind, who.2 AS unit_id, level, arrayMap(t -> fromUnixTimestamp64Micro(t, 'UTC'), times) AS step_times,
    arrayFirst(e -> e.1 = times[1] AND has(e.5, 1), entries).6 AS value
FROM
(
    SELECT {{.Unit}} AS who,
        {{template "funnel_level" .}} AS level,
        arraySort(e -> (e.1, e.2, e.3, e.4), groupArray((toUnixTimestamp64Micro(event_time), arrayMin(ixs), source_partition, source_offset, ixs, label))) AS entries,
        {{template "funnel_chain" .}} AS times
    FROM
    (
        {{template "funnel_events" .}}
    )
    GROUP BY who
)
WHERE level > 0{{end}}

{{define "funnel_events"}}SELECT u.actor_kind AS actor_kind, u.actor_id AS actor_id, u.account_id AS account_id, u.event_time AS event_time, u.source_partition AS source_partition, u.source_offset AS source_offset,
            {{.Dimension "u"}} AS label,
            arrayFilter((i, s) -> s = u.feature_id OR s = concat('event:', u.event), arrayEnumerate({{.P "steps"}}), {{.P "steps"}}) AS ixs{{if eq (.P "tries") "1"}},
            arrayExists(s -> s = u.feature_id OR s = concat('event:', u.event), {{.P "without"}}) AS ends{{end}}
        FROM ({{template "counted_events" ((.With "columns" "event, event_time, source_partition, source_offset").With "where" "1")}}) AS u
        {{template "trait_join" .}}
        WHERE {{.CheckUnit}} AND {{.CheckDimension}} AND {{.CheckSteps}} AND {{if eq (.P "tries") "1"}}{{.CheckOrdering}} AND (notEmpty(ixs) OR ends OR {{.P "ordering"}} = 'strict'){{else}}notEmpty(ixs){{end}}{{end}}

{{define "funnel_level"}}windowFunnel({window:UInt64} * 1000000, 'strict_once')(toUInt64(toUnixTimestamp64Micro(event_time)),
            has(ixs, 1), has(ixs, 2), has(ixs, 3), has(ixs, 4), has(ixs, 5), has(ixs, 6), has(ixs, 7), has(ixs, 8)){{end}}

{{define "funnel_chain"}}arrayFold((acc, x) -> if(
                x.2 != 1 AND (empty(acc.1[x.2 - 1]) OR x.1 - acc.1[x.2 - 1][1] > {window:UInt64} * 1000000), acc,
                (arrayMap((c, j) -> if(j = x.2, if(j = 1, [x.1], arrayPushBack(acc.1[j - 1], x.1)), c), acc.1, arrayEnumerate(acc.1)),
                 if(x.2 > length(acc.2), if(x.2 = 1, [x.1], arrayPushBack(acc.1[x.2 - 1], x.1)), acc.2))),
            arrayFlatten(arrayMap(e -> arrayMap(i -> (e.1, i), arrayReverseSort(e.5)), entries)),
            (arrayMap(s -> CAST([], 'Array(Int64)'), {{.P "steps"}}), CAST([], 'Array(Int64)'))).2{{end}}

{{define "funnel_tries_query"}}-- The events of each one are cut into tries at each event that ends one. In a try, in
-- the order of time and of the log: ordered is as in funnel_people_query; strict are
-- steps that follow each other with no other event between them; for any, an event is
-- the first of the steps that it matches, and what counts is how many different steps
-- lie within one window, each at its last occurrence. The best try counts, and the
-- earliest of equal ones.
SELECT who.1 AS unit_kind, who.2 AS unit_id, best.1 AS level, arrayMap(t -> fromUnixTimestamp64Micro(t, 'UTC'), best.2) AS step_times, best.3 AS value
FROM
(
    SELECT who, argMax((level, times, label), (level, -toInt64(try))) AS best
    FROM
    (
        SELECT who, try, times, if({{.P "ordering"}} = 'ordered', toUInt64(ordered), length(times)) AS level,
            arrayFirst(e -> e.1 = times[1] AND (has(e.5, 1) OR {{.P "ordering"}} = 'any'), entries).6 AS label
        FROM
        (
            SELECT who, try,
                {{template "funnel_level" .}} AS ordered,
                arraySort(e -> (e.1, e.2, e.3, e.4), groupArray((toUnixTimestamp64Micro(event_time), if({{.P "ordering"}} = 'ordered', arrayMin(ixs), 0), source_partition, source_offset, ixs, label))) AS entries,
                if({{.P "ordering"}} = 'ordered', {{template "funnel_chain" .}}, if({{.P "ordering"}} = 'strict', {{template "funnel_strict" .}}, {{template "funnel_any" .}})) AS times
            FROM
            (
                SELECT {{.Unit}} AS who, event_time, source_partition, source_offset, label, ixs, ends, sum(ends) OVER (PARTITION BY who ORDER BY event_time, source_partition, source_offset) AS try
                FROM
                (
                    {{template "funnel_events" .}}
                )
            )
            WHERE NOT ends
            GROUP BY who, try
        )
        WHERE level > 0
    )
    GROUP BY who
){{end}}

{{define "funnel_strict"}}-- How far the steps lead from each event on; the lambda has the events that follow as
            -- further arguments, since one that captures the array copies it for each event.
            arrayMap(runs -> arrayMap(e -> e.1, arraySlice(entries, indexOf(runs, arrayMax(runs)), arrayMax(runs))), [arrayMap((a, b, c, d, e, f, g, h) ->
                {{range $i, $e := .Letters}}if(NOT has({{$e}}.2, {{$i}} + 1){{if $i}} OR {{$e}}.1 - a.1 > {window:UInt64} * 1000000{{end}}, {{$i}}, {{end}}8{{range .Letters}}){{end}},
                {{range $i, $e := .Letters}}{{if $i}}, {{end}}arrayResize(arraySlice(arrayMap(x -> (x.1, x.5), entries), {{$i}} + 1), length(entries)){{end}})])[1]{{end}}

{{define "funnel_any"}}arrayFold((acc, e) -> arrayMap(last -> (last, if(arrayCount(t -> e.1 - t <= {window:UInt64} * 1000000, last) > length(acc.2), arraySort(arrayFilter(t -> e.1 - t <= {window:UInt64} * 1000000, last)), acc.2)),
                [arrayMap((t, s, before, j) -> if(s != {{.P "steps"}}[e.5[1]], t, if(before = 0, e.1, acc.1[before])), acc.1, {{.P "steps"}},
                    arrayMap((s, j) -> arrayLastIndex(x -> x = s, arraySlice({{.P "steps"}}, 1, j - 1)), {{.P "steps"}}, arrayEnumerate({{.P "steps"}})), arrayEnumerate(acc.1))])[1],
            entries, (arrayMap(s -> toInt64(-9000000000000000000), {{.P "steps"}}), CAST([], 'Array(Int64)'))).2{{end}}

{{define "funnel_query"}}SELECT toLowCardinality({app:String}) AS app_id, value, toUInt32(step) AS step, {{if eq (.P "tries") "1"}}if({{.P "ordering"}} = 'any', '', {{.P "steps"}}[step]){{else}}{{.P "steps"}}[step]{{end}} AS step_name, countIf(level >= step) AS reached, reached / countIf(level >= 1) AS conversion_from_first,
    reached / nullIf(countIf(level + 1 >= step), 0) AS conversion_from_previous,
    quantileExactInclusiveOrNullIf(0.5)(seconds, step > 1 AND length(step_times) >= step) AS median_seconds_from_previous,
    quantileExactInclusiveOrNullIf(0.9)(seconds, step > 1 AND length(step_times) >= step) AS p90_seconds_from_previous
FROM
(
    SELECT value, level, step_times, step, if(step > 1, (toUnixTimestamp64Micro(step_times[step]) - toUnixTimestamp64Micro(step_times[step - 1])) / 1000000, 0) AS seconds
    FROM ({{if eq (.P "tries") "1"}}{{template "funnel_tries_query" .}}{{else}}{{template "funnel_people_query" .}}{{end}})
    ARRAY JOIN arrayEnumerate({{.P "steps"}}) AS step
)
GROUP BY value, step
ORDER BY value, step{{end}}

{{define "sessions_query"}}-- Events of each person in order of time, and of the log where the time is the same,
-- cut where the gap is longer than the defined one.
SELECT actor_kind, actor_id, s.2[1].6 AS account_id, toUInt32(s.1) AS session_number, fromUnixTimestamp64Micro(s.2[1].1, 'UTC') AS started_at, fromUnixTimestamp64Micro(s.2[-1].1, 'UTC') AS ended_at,
    (s.2[-1].1 - s.2[1].1) / 1000000 AS seconds, length(s.2) AS events, arrayMap(e -> if(e.4 != '', e.4, concat('event:', e.5)), s.2) AS steps
FROM
(
    SELECT actor_kind, actor_id, arraySort(e -> (e.1, e.2, e.3), groupArray((toUnixTimestamp64Micro(event_time), source_partition, source_offset, feature_id, toString(event), account_id))) AS es,
        arraySplit((e, begins) -> begins, es, arrayMap((e, before) -> e.1 - before.1 > gap * 1000000, es, arrayPushFront(arrayPopBack(es), es[1]))) AS ss,
        (SELECT if(count() = 0, 1800, max(toInt64OrZero(value))) FROM ({{template "definitions" .}}) WHERE use = 'session_gap') AS gap
    FROM ({{template "counted_events" ((.With "columns" "event, event_time, source_partition, source_offset").With "where" "1")}})
    GROUP BY actor_kind, actor_id
)
ARRAY JOIN arrayZip(arrayEnumerate(ss), ss) AS s{{end}}

{{define "milestones"}}-- Of each person the first event of any kind and the first one of each milestone, of
-- all time.
WITH
    (SELECT groupArray((use, concat(match, ':', value))) FROM ({{template "definitions" .}})
     WHERE use IN ('signup_page', 'signup', 'activation', 'value', 'subscription', 'paid')) AS defined,
    (use, feature, event) -> has(defined, (use, concat('feature:', feature))) OR has(defined, (use, concat('event:', event))) AS matches
SELECT actor_kind, actor_id, argMax(e.account_id, (e.event_time, e.source_partition, e.source_offset)) AS account_id, min(e.event_time) AS first_seen_at,
    minOrNullIf(e.event_time, matches('signup_page', e.feature_id, e.event)) AS signup_page_at, minOrNullIf(e.event_time, matches('signup', e.feature_id, e.event)) AS signup_at,
    minOrNullIf(e.event_time, matches('activation', e.feature_id, e.event)) AS activation_at, minOrNullIf(e.event_time, matches('value', e.feature_id, e.event)) AS value_at,
    minOrNullIf(e.event_time, matches('subscription', e.feature_id, e.event)) AS subscription_at, minOrNullIf(e.event_time, matches('paid', e.feature_id, e.event)) AS paid_at
FROM ({{template "counted_events" (((((.With "columns" "event, event_time, source_partition, source_offset").With "where" "1").With "from" "toDate('1970-01-03')").With "to" "toDate('2100-01-01')").With "zone" "'UTC'")}}) AS e
GROUP BY actor_kind, actor_id{{end}}
