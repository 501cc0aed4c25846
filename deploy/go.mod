module github.com/uptakehq/uptake/deploy

go 1.26

replace github.com/uptakehq/uptake/schemas => ../schemas

replace github.com/uptakehq/uptake/ingest-gateway => ../ingest-gateway

replace github.com/uptakehq/uptake/enricher => ../enricher

replace github.com/uptakehq/uptake/rollup-writer => ../rollup-writer
