-- wrk: sends the requests of the file REQUESTS in turn, each connection its own way through them; prints one RESULT line.
-- A line of the file is `path <tab> file of the body <tab> name <tab> value <tab> name …` of the headers.
local requests, at = {}, 0

function init(arguments)
  for line in io.lines(os.getenv("REQUESTS")) do
    local fields = {}
    for field in string.gmatch(line, "([^\t]+)") do fields[#fields + 1] = field end
    local file = assert(io.open(fields[2], "rb"))
    local body = file:read("*a")
    file:close()
    local headers = {}
    for k = 3, #fields, 2 do headers[fields[k]] = fields[k + 1] end
    requests[#requests + 1] = wrk.format("POST", fields[1], headers, body)
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"duration_us":%d,"p50_us":%.1f,"p90_us":%.1f,"p99_us":%.1f,"max_us":%.1f,' ..
    '"errors":{"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(90), latency:percentile(99),
    latency.max, errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
