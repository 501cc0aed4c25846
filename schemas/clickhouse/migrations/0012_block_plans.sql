-- Plans and corrections of whole blocks. A correction is a pair of rows, row 2k-1
-- under the old attribution and row 2k under the new one; source_offset is that
-- of the control record that moved it. Kept in the order of the log they tell of
-- each event for whom it counts today: it takes each move behind its own offset
-- that names the attribution which it has by then.

{{.AddColumn "corrections" "block" "Int64 COMMENT 'Offset with which the block of the log begins that the control record stands in' CODEC(Delta, ZSTD(1))"}};

{{.AddColumn "corrections" "row" "UInt32 COMMENT 'Place in the block: row 2k-1 is the old attribution of a move, row 2k the new one' CODEC(Delta, ZSTD(1))"}};

{{.AddColumn "correction_plans" "block" "Int64 COMMENT 'Offset with which the block begins'"}};

{{.AddColumn "correction_plans" "plan" "UInt64 COMMENT 'Number of the attempt that wrote the row: the head says which one counts'"}};

{{.AddColumn "correction_plans" "block_end" "Int64 COMMENT 'Of the head of a plan, which is in chunk 0: offset behind the block'"}};

{{.AddColumn "correction_plans" "chunk_rows" "Array(UInt32) COMMENT 'Of the head: rows of each chunk'"}};

{{.AddColumn "correction_plans" "chunk_events" "Array(Int64) COMMENT 'Of the head: events that each chunk moves'"}};

{{.AddColumn "correction_plans" "chunk_quantity" "Array(Int64) COMMENT 'Of the head: their quantity'"}};
