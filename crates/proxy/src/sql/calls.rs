//! Whether a statement may do more to its session than its text shows: a function's body can make
//! temporary objects, take locks and change settings.
//!
//! **Invariant:** a function counts as harmless only by its name on a list of PostgreSQL's own.
//!
//! It does not know views, triggers and defaults, which call functions that no statement names.

use super::token::{Kind, NAME_MAX, Token};

/// Statements whose effects depend on what is not in them, and those that take away what ties a
/// session to its server.
const OPAQUE: [&str; 8] = [
    "call", "close", "create", "do", "drop", "execute", "explain", "unlisten",
];

/// Through which an UPDATE sets settings.
pub(super) const VIEW: &str = "pg_settings";

/// Not functions, though a parenthesis follows. In alphabetical order.
const KEYWORDS: [&str; 61] = [
    "all",
    "and",
    "any",
    "array",
    "as",
    "between",
    "bit",
    "by",
    "case",
    "cast",
    "char",
    "character",
    "check",
    "coalesce",
    "conflict",
    "cube",
    "decimal",
    "distinct",
    "else",
    "except",
    "exists",
    "extract",
    "filter",
    "float",
    "from",
    "greatest",
    "group",
    "grouping",
    "having",
    "in",
    "intersect",
    "interval",
    "lateral",
    "least",
    "like",
    "materialized",
    "not",
    "nullif",
    "numeric",
    "on",
    "or",
    "over",
    "overlay",
    "position",
    "returning",
    "rollup",
    "row",
    "select",
    "sets",
    "some",
    "substring",
    "then",
    "time",
    "timestamp",
    "trim",
    "union",
    "using",
    "values",
    "varchar",
    "when",
    "where",
];

/// PostgreSQL's own that leave a session as it is, or whose effects are read elsewhere: those that
/// people call most. In alphabetical order.
const HARMLESS: [&str; 140] = [
    "abs",
    "age",
    "array_agg",
    "array_append",
    "array_length",
    "array_position",
    "array_remove",
    "array_to_json",
    "array_to_string",
    "avg",
    "bit_and",
    "bit_or",
    "bool_and",
    "bool_or",
    "btrim",
    "cardinality",
    "ceil",
    "ceiling",
    "char_length",
    "chr",
    "clock_timestamp",
    "concat",
    "concat_ws",
    "convert_from",
    "convert_to",
    "count",
    "cume_dist",
    "current_database",
    "current_schema",
    "current_schemas",
    "current_setting",
    "currval",
    "date",
    "date_bin",
    "date_part",
    "date_trunc",
    "decode",
    "dense_rank",
    "div",
    "encode",
    "every",
    "exp",
    "first_value",
    "floor",
    "format",
    "format_type",
    "gen_random_uuid",
    "generate_series",
    "hashtext",
    "initcap",
    "json_agg",
    "json_array_elements",
    "json_build_array",
    "json_build_object",
    "json_object_agg",
    "jsonb_agg",
    "jsonb_array_elements",
    "jsonb_array_length",
    "jsonb_build_array",
    "jsonb_build_object",
    "jsonb_each",
    "jsonb_object_agg",
    "jsonb_path_query",
    "jsonb_set",
    "jsonb_strip_nulls",
    "jsonb_typeof",
    "lag",
    "last_value",
    "lastval",
    "lead",
    "left",
    "length",
    "ln",
    "log",
    "lower",
    "lpad",
    "ltrim",
    "make_date",
    "make_interval",
    "make_timestamp",
    "max",
    "md5",
    "min",
    "mod",
    "nextval",
    "now",
    "ntile",
    "obj_description",
    "octet_length",
    "percentile_cont",
    "pg_advisory_lock",
    "pg_advisory_lock_shared",
    "pg_advisory_xact_lock",
    "pg_advisory_xact_lock_shared",
    "pg_backend_pid",
    "pg_get_constraintdef",
    "pg_get_expr",
    "pg_get_indexdef",
    "pg_get_serial_sequence",
    "pg_get_userbyid",
    "pg_is_in_recovery",
    "pg_notify",
    "pg_relation_size",
    "pg_size_pretty",
    "pg_sleep",
    "pg_table_is_visible",
    "pg_total_relation_size",
    "pg_try_advisory_lock",
    "pg_try_advisory_lock_shared",
    "pg_try_advisory_xact_lock",
    "pg_typeof",
    "power",
    "quote_ident",
    "quote_literal",
    "random",
    "rank",
    "regexp_match",
    "regexp_matches",
    "regexp_replace",
    "repeat",
    "replace",
    "reverse",
    "right",
    "round",
    "row_number",
    "row_to_json",
    "rpad",
    "rtrim",
    "setval",
    "sha256",
    "sign",
    "split_part",
    "sqrt",
    "string_agg",
    "string_to_array",
    "strpos",
    "sum",
    "to_char",
    "to_json",
    "to_jsonb",
];

/// Whether the session must be looked at behind it. `is_plain`: it calls nothing, and nothing goes INTO anything.
pub(super) fn is_opaque(tokens: &[Token<'_>], is_plain: bool) -> bool {
    let Some(first) = tokens.first() else {
        return false;
    };
    if OPAQUE.iter().any(|word| first.is(word)) {
        return true;
    }
    if is_plain {
        return false;
    }
    let selects = first.is("select") || first.is("with");
    tokens.iter().enumerate().any(|(at, token)| {
        let called = tokens.get(at + 1).is_some_and(|next| next.is_sign(b'('));
        // `SELECT … INTO` makes a table, in whatever schema comes first.
        (selects && token.is("into") && !is_target(tokens, at))
            || (called && token.is_name() && !is_listed(tokens, at) && !is_table(tokens, at))
    })
}

/// `UPDATE pg_settings`, anywhere in a statement: a rule of the view's sets them.
pub(super) fn sets_by_view(tokens: &[Token<'_>]) -> bool {
    let mut room = [0; NAME_MAX];
    let mut is_view = |token: &Token<'_>| match token.kind {
        Kind::Unicode => true,
        _ => token.text.len() >= VIEW.len() && token.folded(&mut room) == Some(VIEW),
    };
    tokens.iter().any(&mut is_view) && tokens.iter().any(|token| token.is("update"))
}

/// Others of PostgreSQL's own, by their families; and those of uuid-ossp. In alphabetical order.
const FAMILIES: [&str; 97] = [
    "has_any_column_privilege",
    "has_column_privilege",
    "has_database_privilege",
    "has_foreign_data_wrapper_privilege",
    "has_function_privilege",
    "has_language_privilege",
    "has_parameter_privilege",
    "has_schema_privilege",
    "has_sequence_privilege",
    "has_server_privilege",
    "has_table_privilege",
    "has_tablespace_privilege",
    "has_type_privilege",
    "json_array_element",
    "json_array_elements_text",
    "json_array_length",
    "json_each",
    "json_each_text",
    "json_extract_path",
    "json_extract_path_text",
    "json_object",
    "json_object_keys",
    "json_populate_record",
    "json_populate_recordset",
    "json_strip_nulls",
    "json_to_record",
    "json_to_recordset",
    "json_typeof",
    "jsonb_array_elements_text",
    "jsonb_each_text",
    "jsonb_extract_path",
    "jsonb_extract_path_text",
    "jsonb_insert",
    "jsonb_object",
    "jsonb_object_keys",
    "jsonb_path_exists",
    "jsonb_path_exists_tz",
    "jsonb_path_match",
    "jsonb_path_match_tz",
    "jsonb_path_query_array",
    "jsonb_path_query_array_tz",
    "jsonb_path_query_first",
    "jsonb_path_query_first_tz",
    "jsonb_path_query_tz",
    "jsonb_populate_record",
    "jsonb_populate_recordset",
    "jsonb_pretty",
    "jsonb_set_lax",
    "jsonb_to_record",
    "jsonb_to_recordset",
    "pg_get_function_arg_default",
    "pg_get_function_arguments",
    "pg_get_function_identity_arguments",
    "pg_get_function_result",
    "pg_get_functiondef",
    "pg_get_keywords",
    "pg_get_partition_constraintdef",
    "pg_get_partkeydef",
    "pg_get_ruledef",
    "pg_get_statisticsobjdef",
    "pg_get_triggerdef",
    "pg_get_viewdef",
    "regexp_count",
    "regexp_instr",
    "regexp_like",
    "regexp_split_to_array",
    "regexp_split_to_table",
    "regexp_substr",
    "set_config",
    "setseed",
    "to_date",
    "to_hex",
    "to_number",
    "to_regclass",
    "to_regcollation",
    "to_regnamespace",
    "to_regoper",
    "to_regoperator",
    "to_regproc",
    "to_regprocedure",
    "to_regrole",
    "to_regtype",
    "to_timestamp",
    "to_tsquery",
    "to_tsvector",
    "transaction_timestamp",
    "trunc",
    "unnest",
    "upper",
    "upper_inc",
    "upper_inf",
    "uuid_generate_v1",
    "uuid_generate_v1mc",
    "uuid_generate_v3",
    "uuid_generate_v4",
    "uuid_generate_v5",
    "version",
];

/// Whether it stands for itself, or for a function of PostgreSQL's own: with its whole name, and in no schema but theirs.
fn is_listed(tokens: &[Token<'_>], at: usize) -> bool {
    let token = &tokens[at];
    let mut room = [0; NAME_MAX];
    let Some(name) = token.folded(&mut room) else {
        return false;
    };
    let before = at.checked_sub(1).map(|before| &tokens[before]);
    let is_in_schema = before.is_some_and(|before| before.is_sign(b'.'));
    if is_in_schema && !is_in_theirs(tokens, at) {
        return false;
    }
    let keyword = token.kind == Kind::Word && KEYWORDS.binary_search(&name).is_ok();
    (keyword && is_in_place(name, before))
        || HARMLESS.binary_search(&name).is_ok()
        || FAMILIES.binary_search(&name).is_ok()
}

fn is_in_theirs(tokens: &[Token<'_>], at: usize) -> bool {
    let mut room = [0; NAME_MAX];
    let schema = at.checked_sub(2).map(|at| &tokens[at]);
    schema.and_then(|schema| schema.folded(&mut room)) == Some("pg_catalog")
}

/// Some keywords may be names of functions, too, elsewhere than where they are keywords.
fn is_in_place(keyword: &str, before: Option<&Token<'_>>) -> bool {
    let is_behind = |words: &[&str]| {
        let is = |before: &Token<'_>| words.iter().any(|word| before.is(word));
        before.is_some_and(is)
    };
    match keyword {
        "by" => is_behind(&["group", "order", "partition"]),
        "conflict" => is_behind(&["on"]),
        "filter" | "over" => before.is_some_and(|before| before.is_sign(b')')),
        "materialized" => is_behind(&["as", "not"]),
        "sets" => is_behind(&["grouping"]),
        _ => true,
    }
}

/// `INSERT INTO [schema.]name (`: a list of columns follows.
pub(super) fn is_table(tokens: &[Token<'_>], at: usize) -> bool {
    let mut before = at;
    while before >= 2 && tokens[before - 1].is_sign(b'.') {
        before -= 2;
    }
    before > 0 && tokens[before - 1].is("into")
}

/// The INTO of an INSERT or a MERGE.
fn is_target(tokens: &[Token<'_>], at: usize) -> bool {
    at > 0 && (tokens[at - 1].is("insert") || tokens[at - 1].is("merge"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::Reading;

    #[test]
    fn the_lists_are_sorted() {
        assert!(KEYWORDS.is_sorted());
        assert!(HARMLESS.is_sorted());
        assert!(FAMILIES.is_sorted());
    }

    #[test]
    fn what_may_do_more_than_it_shows_is_found() {
        for (text, opaque) in [
            ("select 1", false),
            (
                "select count(*), coalesce(a, 1) from t where b in (1, 2) and (c or d)",
                false,
            ),
            (
                "insert into t (a, b) values (now(), $1) on conflict (a) do update set b = 1",
                false,
            ),
            ("insert into public.\"T\" (a) select max(b) from u", false),
            ("with x as (select 1) insert into t select * from x", false),
            ("update t set a = lower(b) where c = any($1)", false),
            ("update pg_settings set setting = $1 where name = $2", true),
            (
                "UPDATE Pg_Catalog.PG_Settings AS s SET setting = '1' WHERE s.name = 'work_mem'",
                true,
            ),
            (
                "update only pg_catalog . \"pg_settings\" set setting = '1'",
                true,
            ),
            ("update /**/ U&\"pg\\005fsettings\" set setting = 1", true),
            (
                "with a as (update pg_settings set setting = '1' returning 1) select 1",
                true,
            ),
            (
                "with a as (select 1) update pg_settings set setting = '1'",
                true,
            ),
            ("select setting from pg_settings where name = 'x'", false),
            ("update \"PG_settings\" set a = 1", false),
            ("begin", false),
            ("set work_mem = '1MB'", false),
            ("select f()", true),
            ("select public.f(1)", true),
            ("select \"now\"(), \"Now\"()", true),
            ("select * from f(1)", true),
            ("insert into t (a) values (f(1))", true),
            ("select 1 as a into x", true),
            ("do $$ begin end $$", true),
            ("call p()", true),
            ("execute q", true),
            ("create table x ()", true),
            ("unlisten *", true),
            ("select 1; select f()", true),
            (
                "select pg_catalog.upper(a), Has_Table_Privilege(b, 'c')",
                false,
            ),
            (
                "select sum(a) filter (where b) over (partition by (c) order by (d)) from t \
                 group by grouping sets ((a), (b))",
                false,
            ),
            ("select cast(a as pg_catalog.varchar(3))", false),
            ("select truncate_x('a')", true),
            ("select trunc_ate(1)", true),
            ("select set_config_for('a')", true),
            ("select has_access('a')", true),
            ("select app.log('a')", true),
            ("select app.pg_catalog.log('a'), app . \"log\" ('a')", true),
            ("select conflict('a')", true),
            ("select filter(1), 2", true),
            ("select app.values(1)", true),
            ("explain analyze create temp table t as select 1", true),
            ("select U&\"set_config\"('a', 'b', false)", true),
            ("insert into U&\"t\" (a) values (1)", false),
        ] {
            assert_eq!(Reading::of(text.as_bytes(), true).opaque, opaque, "{text}");
        }
    }
}
