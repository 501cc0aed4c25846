module github.com/uptakehq/uptake/ingest-gateway

go 1.26

replace github.com/uptakehq/uptake/schemas => ../schemas
