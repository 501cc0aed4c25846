module github.com/uptakehq/uptake/enricher

go 1.26

replace github.com/uptakehq/uptake/schemas => ../schemas
