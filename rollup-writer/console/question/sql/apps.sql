-- title: Apps
-- definition: Apps with usage or rejected events, the busiest first.
SELECT app_id, max(n) AS events
FROM
(
    SELECT app_id, toInt64(sum(e.events)) AS n FROM account_product_daily AS e GROUP BY app_id
    UNION ALL
    SELECT app_id, toInt64(0) FROM rejected_events GROUP BY app_id
)
GROUP BY app_id
ORDER BY events DESC, app_id
LIMIT 200
