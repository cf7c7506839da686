// The official npm client against our server; prints what it got as one JSON object. Run by test_api_node.py.
//     NODE_PATH=... node openai_client.cjs http://127.0.0.1:PORT/v1
const { OpenAI } = require("openai");

async function main(baseURL) {
  const client = new OpenAI({ baseURL, apiKey: "any", maxRetries: 0 });
  const messages = [{ role: "user", content: "Hi" }];
  const asked = { model: "tiny", messages, max_tokens: 40 };
  const found = {};

  const plain = await client.chat.completions.create({ ...asked, logprobs: true, top_logprobs: 1 });
  found.plain = plain.choices[0].message.content;
  found.usage = plain.usage.total_tokens;
  found.bytes = plain.choices[0].logprobs.content.flatMap((token) => token.bytes);

  found.streamed = "";
  const stream = await client.chat.completions.create({ ...asked, stream: true, stream_options: { include_usage: true } });
  for await (const chunk of stream) {
    found.streamed += chunk.choices[0]?.delta?.content ?? "";
    found.streamedUsage = chunk.usage?.total_tokens;
  }

  const helper = client.chat.completions.stream(asked);
  found.helper = (await helper.finalChatCompletion()).choices[0].message.content;

  const text = await client.completions.create({ model: "tiny", prompt: ["Go ", "Go "], max_tokens: 40, n: 2 });
  found.texts = text.choices.map((choice) => choice.text);
  found.models = (await client.models.list()).data.map((model) => model.id);

  found.errors = [];
  for (const wrong of [{ model: "gpt-4" }, { temperature: -1 }, { max_tokens: 100000 }, { unknown: 1 }]) {
    try {
      await client.chat.completions.create({ ...asked, ...wrong });
    } catch (error) {
      found.errors.push([error.constructor.name, error.status, error.code, error.param]);
    }
  }
  console.log(JSON.stringify(found));
}

main(process.argv[2]).catch((error) => {
  console.error(error);
  process.exit(1);
});
