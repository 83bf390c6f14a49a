# Plain values out of a JSON text (RFC 8259), a line for each: awk -v paths="action.id items.0.name" -f fields.awk
# Or a line for each object in a list, its values with a | behind each: awk -v list_at=items -v paths="name zone.id" -f fields.awk
#
# A path has keys, and numbers from 0 for what is in a list. What is null, an object, a list or not there gives an empty
# line. A text that is no JSON gives exit code 1. Of escapes \" \\ and \/ are undone; the others do not occur in ids,
# addresses and states. It exists because jq 1.6 takes 35 ms to start, and this 3.

BEGIN {
    wanted = split(paths, want, " ")
    expected = "value" # or "key", "colon", "end": what may come next
}

{ text = text $0 "\n" }

END {
    while (!wrong && next_token())
        take()
    if (wrong || depth || expected != "end")
        exit 1
    if (list_at == "")
        for (i = 1; i <= wanted; i++)
            print got[i]
    for (n = 0; n < rows; n++)
        print row(n)
}

function row(n,  line) {
    for (i = 1; i <= wanted; i++) {
        gsub(/\|/, " ", got[n, i])
        line = line got[n, i] "|"
    }
    return line
}

# Sets `token`, and for values `kind`; 0 at the end.
function next_token() {
    match(text, /^[ \t\r\n]*/)
    text = substr(text, RLENGTH + 1)
    if (text == "")
        return 0
    if (match(text, /^[][{}:,]/))
        kind = "mark"
    else if (match(text, /^"([^"\\]|\\.)*"/))
        kind = "string"
    else if (match(text, /^(-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?|true|false|null)/))
        kind = "literal"
    else {
        wrong = 1
        return 0
    }
    token = substr(text, 1, RLENGTH)
    text = substr(text, RLENGTH + 1)
    return 1
}

function take() {
    if (kind != "mark")
        scalar()
    else if (token == "{" || token == "[")
        begin()
    else if (token == "}" || token == "]")
        finish()
    else if (token == ",") {
        wrong = !depth || expected != "end"
        place[depth]++
        expected = list[depth] ? "value" : "key"
    } else {
        wrong = expected != "colon"
        expected = "value"
    }
    fresh = kind == "mark" && (token == "{" || token == "[")
}

# An object or a list begins: one more level of the path.
function begin(  name) {
    wrong = expected != "value"
    name = here()
    depth++
    path[depth] = name
    list[depth] = token == "["
    place[depth] = 0
    if (depth > 1 && path[depth - 1] == list_at && list[depth - 1] && !list[depth])
        number[name] = rows++
    expected = list[depth] ? "value" : "key"
}

function finish() {
    wrong = !depth || list[depth] != (token == "]") || !(expected == "end" || fresh)
    depth--
    expected = "end"
}

function scalar(  name) {
    if (kind == "string") {
        token = substr(token, 2, length(token) - 2)
        gsub(/\\\//, "/", token)
        gsub(/\\"/, "\"", token)
        gsub(/\\\\/, "\\", token)
    }
    if (expected == "key" && kind == "string") {
        key[depth] = token
        expected = "colon"
        return
    }
    wrong = expected != "value"
    expected = "end"
    if (kind == "literal" && token == "null")
        token = ""
    # A line for each, whatever is in a string.
    gsub(/[\r\n]/, " ", token)
    name = here()
    for (i = 1; i <= wanted; i++)
        if (want[i] == name)
            got[i] = token
    if (list_at != "")
        in_row(name)
}

# A value of an object in the list, at any depth.
function in_row(name) {
    if (index(name, list_at ".") != 1)
        return
    name = substr(name, length(list_at) + 2)
    if (!match(name, /^[0-9]+\./) || !((list_at "." substr(name, 1, RLENGTH - 1)) in number))
        return
    n = number[list_at "." substr(name, 1, RLENGTH - 1)]
    name = substr(name, RLENGTH + 1)
    for (i = 1; i <= wanted; i++)
        if (want[i] == name)
            got[n, i] = token
}

# The path to the value that is read now.
function here(  name) {
    if (!depth)
        return ""
    name = list[depth] ? place[depth] : key[depth]
    return path[depth] == "" ? name : path[depth] "." name
}
