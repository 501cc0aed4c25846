module github.com/uptakehq/uptake/schemas

go 1.26
