package clickhouse

import (
	"errors"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
	clickhousego "github.com/ClickHouse/clickhouse-go/v2"
)

// Class is the class of an error, which decides how a block is retried.
type Class string

// Classes of errors. After each of them the same rows are sent again under the same
// token; they differ in the wait before that.
const (
	// Lost: the outcome is unknown. Connecting failed, the connection broke,
	// the server was silent.
	Lost Class = "lost"
	// Busy: the server cannot serve the request at present: too many parts, out of
	// memory or disk, read only, Keeper unreachable, shutting down.
	Busy Class = "busy"
	// Server: any other exception.
	Server Class = "server"
	// Data: the server cannot parse a value of the block.
	Data Class = "data"
	// Permanent: the request will be refused until someone changes the schema, the
	// rights or the settings.
	Permanent Class = "permanent"
)

// Classes lists all, for metrics.
var Classes = []Class{Lost, Busy, Server, Data, Permanent}

var classes = map[int]Class{
	// The server cannot serve the request at present.
	3:    Busy, // UNEXPECTED_END_OF_FILE
	32:   Busy, // ATTEMPT_TO_READ_AFTER_EOF
	74:   Busy, // CANNOT_READ_FROM_FILE_DESCRIPTOR
	75:   Busy, // CANNOT_WRITE_TO_FILE_DESCRIPTOR
	76:   Busy, // CANNOT_OPEN_FILE
	159:  Busy, // TIMEOUT_EXCEEDED
	202:  Busy, // TOO_MANY_SIMULTANEOUS_QUERIES
	209:  Busy, // SOCKET_TIMEOUT
	210:  Busy, // NETWORK_ERROR
	225:  Busy, // NO_ZOOKEEPER
	236:  Busy, // ABORTED
	241:  Busy, // MEMORY_LIMIT_EXCEEDED
	242:  Busy, // TABLE_IS_READ_ONLY
	243:  Busy, // NOT_ENOUGH_SPACE
	252:  Busy, // TOO_MANY_PARTS
	285:  Busy, // TOO_FEW_LIVE_REPLICAS
	286:  Busy, // UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE
	319:  Busy, // UNKNOWN_STATUS_OF_INSERT
	394:  Busy, // QUERY_WAS_CANCELLED
	425:  Busy, // SYSTEM_ERROR
	439:  Busy, // CANNOT_SCHEDULE_TASK
	473:  Busy, // DEADLOCK_AVOIDED
	667:  Busy, // NOT_INITIALIZED
	733:  Busy, // TABLE_IS_BEING_RESTARTED
	745:  Busy, // SERVER_OVERLOADED
	999:  Busy, // KEEPER_EXCEPTION
	1000: Busy, // POCO_EXCEPTION
	1001: Busy, // STD_EXCEPTION
	1002: Busy, // UNKNOWN_EXCEPTION

	// A value of the block cannot be parsed.
	6:   Data, // CANNOT_PARSE_TEXT
	26:  Data, // CANNOT_PARSE_QUOTED_STRING
	27:  Data, // CANNOT_PARSE_INPUT_ASSERTION_FAILED
	72:  Data, // CANNOT_PARSE_NUMBER
	117: Data, // INCORRECT_DATA
	636: Data, // CANNOT_EXTRACT_TABLE_STRUCTURE

	// An operator has to change something.
	1:   Permanent, // UNSUPPORTED_METHOD
	7:   Permanent, // INCORRECT_NUMBER_OF_COLUMNS
	8:   Permanent, // THERE_IS_NO_COLUMN
	10:  Permanent, // NOT_FOUND_COLUMN_IN_BLOCK
	16:  Permanent, // NO_SUCH_COLUMN_IN_TABLE
	20:  Permanent, // NUMBER_OF_COLUMNS_DOESNT_MATCH
	43:  Permanent, // ILLEGAL_TYPE_OF_ARGUMENT
	44:  Permanent, // ILLEGAL_COLUMN
	46:  Permanent, // UNKNOWN_FUNCTION
	47:  Permanent, // UNKNOWN_IDENTIFIER
	48:  Permanent, // NOT_IMPLEMENTED
	50:  Permanent, // UNKNOWN_TYPE
	53:  Permanent, // TYPE_MISMATCH
	60:  Permanent, // UNKNOWN_TABLE
	62:  Permanent, // SYNTAX_ERROR
	70:  Permanent, // CANNOT_CONVERT_TYPE
	81:  Permanent, // UNKNOWN_DATABASE
	115: Permanent, // UNKNOWN_SETTING
	164: Permanent, // READONLY
	192: Permanent, // UNKNOWN_USER
	193: Permanent, // WRONG_PASSWORD
	194: Permanent, // REQUIRED_PASSWORD
	195: Permanent, // IP_ADDRESS_NOT_ALLOWED
	201: Permanent, // QUOTA_EXCEEDED
	291: Permanent, // DATABASE_ACCESS_DENIED
	392: Permanent, // QUERY_IS_PROHIBITED
	452: Permanent, // SETTING_CONSTRAINT_VIOLATION
	497: Permanent, // ACCESS_DENIED
	516: Permanent, // AUTHENTICATION_FAILED
}

// Classify returns the class of err, an error of a Conn or of a connection of OpenSQL.
func Classify(err error) Class {
	if errors.Is(err, ErrUnknownParts) {
		return Busy
	}
	code, ok := Code(err)
	if !ok {
		return Lost
	}
	if c, ok := classes[code]; ok {
		return c
	}
	return Server
}

// Code returns the number of the exception in err's chain, if the server sent
// one.
func Code(err error) (int, bool) {
	if e, ok := ch.AsException(err); ok {
		return int(e.Code), true
	}
	var p proto.Error
	if errors.As(err, &p) {
		return int(p), true
	}
	var e *clickhousego.Exception
	if errors.As(err, &e) {
		return int(e.Code), true
	}
	return 0, false
}
