module github.com/uptakehq/uptake/rollup-writer

go 1.26

replace github.com/uptakehq/uptake/schemas => ../schemas
