import js from "@eslint/js";
import stylistic from "@stylistic/eslint-plugin";
import tseslint from "typescript-eslint";

/** node-llama-cpp's style: four spaces, double quotes, semicolons, no space inside braces. */
const style = {
    plugins: {"@stylistic": stylistic},
    rules: {
        "@stylistic/arrow-parens": ["error", "always"],
        "@stylistic/arrow-spacing": "error",
        "@stylistic/block-spacing": ["error", "always"],
        "@stylistic/brace-style": ["error", "1tbs", {allowSingleLine: false}],
        "@stylistic/comma-dangle": ["error", "never"],
        "@stylistic/comma-spacing": "error",
        "@stylistic/eol-last": "error",
        "@stylistic/function-call-spacing": ["error", "never"],
        "@stylistic/indent": ["error", 4, {SwitchCase: 1}],
        "@stylistic/key-spacing": "error",
        "@stylistic/keyword-spacing": "error",
        "@stylistic/max-len": ["error", {code: 140, ignoreUrls: true, ignoreStrings: true, ignoreTemplateLiterals: true}],
        "@stylistic/member-delimiter-style": ["error", {
            multiline: {delimiter: "comma", requireLast: false},
            singleline: {delimiter: "comma", requireLast: false},
            overrides: {interface: {multiline: {delimiter: "semi", requireLast: true}}},
            multilineDetection: "brackets"
        }],
        "@stylistic/no-multi-spaces": ["error", {ignoreEOLComments: true}],
        "@stylistic/no-multiple-empty-lines": ["error", {max: 1, maxEOF: 0, maxBOF: 0}],
        "@stylistic/no-trailing-spaces": "error",
        "@stylistic/no-whitespace-before-property": "error",
        "@stylistic/object-curly-spacing": ["error", "never"],
        "@stylistic/quotes": ["error", "double", {avoidEscape: true, allowTemplateLiterals: "avoidEscape"}],
        "@stylistic/semi": ["error", "always"],
        "@stylistic/space-before-blocks": "error",
        "@stylistic/space-before-function-paren": ["error", {anonymous: "never", asyncArrow: "always", named: "never"}],
        "@stylistic/space-in-parens": "error",
        "@stylistic/space-infix-ops": "error",
        "@stylistic/type-annotation-spacing": "error"
    }
};

const nodeGlobals = Object.fromEntries(
    ["process", "console", "Buffer", "URL", "setTimeout", "clearTimeout", "setInterval", "clearInterval", "setImmediate", "performance",
        "structuredClone", "AbortController", "TextDecoder", "TextEncoder"]
        .map((name) => [name, "readonly"])
);

export default tseslint.config(
    {ignores: ["dist*/", "build/", "native/"]},
    style,
    {
        files: ["**/*.js"],
        extends: [js.configs.recommended],
        languageOptions: {globals: nodeGlobals},
        rules: {
            eqeqeq: ["error", "always", {null: "ignore"}],
            "prefer-const": "error"
        }
    },
    {
        files: ["src/**/*.ts", "test/**/*.ts", "bench/**/*.ts"],
        extends: [js.configs.recommended, tseslint.configs.recommendedTypeChecked],
        languageOptions: {parserOptions: {projectService: true, tsconfigRootDir: import.meta.dirname}},
        rules: {
            eqeqeq: ["error", "always", {null: "ignore"}],
            "@typescript-eslint/switch-exhaustiveness-check": ["error", {considerDefaultExhaustiveForUnions: true}]
        }
    }
);
