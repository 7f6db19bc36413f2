-- Bearer tokens (HS256, secret of 32 letters x), verified once and then remembered until they expire.
local ffi = require "ffi"
local json = require "cjson.safe"
ffi.cdef [[
  const void *EVP_sha256(void);
  unsigned char *HMAC(const void *kind, const void *key, int key_size,
                      const unsigned char *text, size_t size, unsigned char *out, unsigned int *out_size);
]]
local SECRET = ("x"):rep(32)
local digest, digest_size = ffi.new("unsigned char[64]"), ffi.new("unsigned int[1]")
local known = require("resty.lrucache").new(10000)
local M = {}

local function decoded(text)
  local padded = text:gsub("-", "+"):gsub("_", "/") .. ("="):rep((4 - #text % 4) % 4)
  return ngx.decode_base64(padded)
end

local function verified(token)
  local signed, signature = token:match("^([^.]+%.[^.]+)%.([^.]+)$")
  if not signed then return nil end
  ffi.C.HMAC(ffi.C.EVP_sha256(), SECRET, #SECRET, signed, #signed, digest, digest_size)
  if ffi.string(digest, 32) ~= decoded(signature) then return nil end
  return json.decode(decoded(signed:match("%.(.+)$")))
end

function M.admit()
  local header = ngx.var.http_authorization
  if not header then return ngx.exit(401) end
  local token = header:sub(8)
  local claims = known:get(token)
  if not claims then
    claims = verified(token)
    if not claims then return ngx.exit(401) end
    known:set(token, claims, 60)
  end
  if claims.exp <= ngx.time() then return ngx.exit(401) end
  ngx.var.tenant = claims.sub
  ngx.req.set_header("Authorization", "Bearer sk-benchmark")
end

return M
